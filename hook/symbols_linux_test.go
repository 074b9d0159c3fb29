package hook

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
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
// That of this machine is what is embedded; that of the other kind is compiled for it.
func TestLibrarySymbols(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		f, err := elf.Open("lib/" + libraryName)
		if err != nil {
			hooktest.Unavailable(t, "preload", err)
		}
		defer f.Close()
		checkSymbols(t, f)
	})
	t.Run("arm64", func(t *testing.T) {
		cc, err := exec.LookPath("aarch64-linux-gnu-gcc")
		if err != nil {
			hooktest.Unavailable(t, "arm64", err)
		}
		dir := t.TempDir()
		if out, err := exec.Command("make", "-s", "-C", "preload", "CC="+cc, "OUT="+dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := elf.Open(filepath.Join(dir, libraryName))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Machine != elf.EM_AARCH64 {
			t.Errorf("it is for %v", f.Machine)
		}
		checkSymbols(t, f)
	})
}

func checkSymbols(t *testing.T, f *elf.File) {
	t.Helper()
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
		switch {
		case elf.ST_TYPE(s.Info) == elf.STT_SECTION: // some linkers keep these
		case s.Section == elf.SHN_UNDEF:
			taken = append(taken, s.Name)
		default:
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
		t.Errorf("shown (-preload.map +library)\n%s", diff)
	}
	if diff := cmp.Diff(imports, taken); diff != "" {
		t.Errorf("taken (-wanted +library)\n%s", diff)
	}
	if needed, err := f.ImportedLibraries(); err != nil || len(needed) > 0 {
		t.Errorf("needs %v, %v", needed, err)
	}
}
