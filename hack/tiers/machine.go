package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// printMachine prints what the expected minutes depend on.
func printMachine(out io.Writer) {
	fmt.Fprintf(out, "machine: %d cores, %s memory free, %s disk free, %s %s/%s\n",
		runtime.NumCPU(), gib(memoryAvailable()), gib(diskFree(".")), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func gib(bytes uint64) string {
	if bytes == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

// memoryAvailable is MemAvailable of proc_meminfo(5), or 0 where there is none.
func memoryAvailable() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
