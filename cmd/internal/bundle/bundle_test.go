package bundle

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube"
)

// program returns the header of a Linux program, with one segment of a type.
func program(machine elf.Machine, segment elf.ProgType) []byte {
	const header, entry = 64, 56 // of ELF64
	b := make([]byte, header+entry)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	put16 := binary.LittleEndian.PutUint16
	put16(b[16:], uint16(elf.ET_EXEC))
	put16(b[18:], uint16(machine))
	binary.LittleEndian.PutUint32(b[20:], uint32(elf.EV_CURRENT))
	binary.LittleEndian.PutUint64(b[32:], header) // of the segments
	put16(b[52:], header)
	put16(b[54:], entry)
	put16(b[56:], 1) // segment
	binary.LittleEndian.PutUint32(b[header:], uint32(segment))
	return b
}

func TestIn(t *testing.T) {
	amd64, arm64 := program(elf.EM_X86_64, elf.PT_LOAD), program(elf.EM_AARCH64, elf.PT_LOAD)
	other := append(program(elf.EM_X86_64, elf.PT_LOAD), 1)
	at := func(dir, name, arch string, text []byte) kube.Binary {
		sum := sha256.Sum256(text)
		return kube.Binary{Arch: arch, Path: filepath.Join(dir, name), Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
	}
	for _, tt := range []struct {
		name  string
		files map[string][]byte
		want  func(dir string) []kube.Binary
		err   string
	}{
		{"none", nil, func(string) []kube.Binary { return nil }, ""},
		{"own", map[string][]byte{"borrownet-agent": amd64, "borrownet": other},
			func(dir string) []kube.Binary { return []kube.Binary{at(dir, "borrownet-agent", "amd64", amd64)} }, ""},
		{"several", map[string][]byte{"borrownet-agent": amd64, "borrownet-agent-linux-arm64": arm64, "borrownet-agent-linux-amd64": other},
			func(dir string) []kube.Binary {
				return []kube.Binary{at(dir, "borrownet-agent", "amd64", amd64), at(dir, "borrownet-agent-linux-arm64", "arm64", arm64)}
			}, ""},
		{"dynamic", map[string][]byte{"borrownet-agent": program(elf.EM_X86_64, elf.PT_INTERP)}, nil, "not static"},
		{"script", map[string][]byte{"borrownet-agent": []byte("#!/bin/sh\n")}, nil, "no program for Linux"},
		{"machine", map[string][]byte{"borrownet-agent": program(elf.EM_PPC64, elf.PT_LOAD)}, nil, "EM_PPC64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a[b]*") // a place that a pattern could misread
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got, err := In(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), dir) {
					t.Errorf("error %v, want one with %q and the path", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want(dir), got); diff != "" {
				t.Errorf("agents (-want +got):\n%s", diff)
			}
		})
	}
}
