package hook

import (
	"debug/elf"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// imports are the only symbols that the library takes from a C library. Every
// glibc and every musl has them.
var imports = []string{
	"__errno_location", "__h_errno_location", "dl_iterate_phdr", "environ", "free", "getauxval", "inet_aton", "inet_ntop", "inet_pton", "malloc",
}

// TestLibrarySymbols holds that the library shows what preload.map lists and
// nothing else, and needs no other library: so one file loads with glibc and musl.
func TestLibrarySymbols(t *testing.T) {
	const path = "lib/" + libraryName
	f, err := elf.Open(path)
	if err != nil {
		hooktest.Unavailable(t, "preload", err)
	}
	defer f.Close()
	text, err := os.ReadFile("preload/preload.map")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+);$`).FindAllSubmatch(text, -1) {
		want = append(want, string(m[1]))
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var shown, taken []string
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF {
			taken = append(taken, s.Name)
		} else {
			shown = append(shown, s.Name)
		}
		if s.Version != "" {
			t.Errorf("%s has version %s: no program asks for that", s.Name, s.Version)
		}
	}
	slices.Sort(want)
	slices.Sort(shown)
	slices.Sort(taken)
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("shown (-preload.map +%s)\n%s", path, diff)
	}
	if diff := cmp.Diff(imports, taken); diff != "" {
		t.Errorf("taken (-wanted +%s)\n%s", path, diff)
	}
	if needed, err := f.ImportedLibraries(); err != nil || len(needed) > 0 {
		t.Errorf("needs %v, %v", needed, err)
	}
}
