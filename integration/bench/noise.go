package main

import (
	"math/rand/v2"
	"slices"
)

const (
	// resamples of the bootstrap: enough that its own noise is small beside the interval.
	resamples = 10_000
	// fewestPairs is what a 95 % interval of a median can be had from at all: of five
	// values, not even the smallest and the largest enclose it that often.
	fewestPairs = 6
)

// interval returns the bootstrap 95 % interval of the median (percentile method). The
// same values give the same interval.
func interval(values []float64) (low, high float64) {
	random := rand.New(rand.NewPCG(1, uint64(len(values))))
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	return medians[resamples*25/1000], medians[resamples*975/1000-1]
}

// A verdict is what paired differences say about a limit.
type verdict string

const (
	withinNoise  verdict = "within noise"
	noWorse      verdict = "no worse"
	outside      verdict = "outside"
	inconclusive verdict = "inconclusive"
)

// An allowance is how far from nothing the median of paired differences may be, in
// percent: to both sides, where what is compared is the same with and without something,
// else only to the worse one.
type allowance struct {
	percent  float64
	orBetter bool
}

// judge says whether the median of paired differences is within an allowance. It takes
// the differences of a control that was made worse on purpose too: if that is not seen,
// neither would anything else be, and nothing follows.
func judge(differences, control []float64, allowed allowance) verdict {
	if min(len(differences), len(control)) < fewestPairs {
		return inconclusive
	}
	limit := allowed.percent
	if low, high := interval(control); low <= 0 || high < limit {
		return inconclusive
	}
	switch low, high := interval(differences); {
	case high < limit && allowed.orBetter:
		return noWorse
	case low > -limit && high < limit:
		return withinNoise
	case low >= limit, high <= -limit:
		return outside
	}
	return inconclusive
}
