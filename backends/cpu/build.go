package cpu

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/backends/csource"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
)

// Backend compiles for the CPU.
func Backend() backend.Backend {
	return backend.Backend{
		Name:   "cpu",
		Doc:    "native code for CPUs, by way of C",
		Target: Target,
		Emit: func(p *program.Program, o backend.Options) ([]backend.Source, error) {
			return csource.Program(p, o), nil
		},
		Build: Build,
		Open:  Open,
	}
}

// common are the flags of every build: no tricks with floats beyond fused
// multiply-adds, wrapping integers, hidden symbols, no paths in the objects.
var common = []string{
	"-O2", "-std=gnu11", "-fPIC", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
	"-fwrapv", "-fno-strict-aliasing", "-fvisibility=hidden", "-w",
}

// Port is an input or output in the manifest.
type Port struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
}

// Manifest is manifest.json.
type Manifest struct {
	Format    int               `json:"format"`
	Name      string            `json:"name"`
	Symbol    string            `json:"symbol"`
	Target    string            `json:"target"`
	CPU       string            `json:"cpu"`
	Arch      string            `json:"arch"`
	Threads   int               `json:"threads"`
	Inputs    []Port            `json:"inputs"`
	Outputs   []Port            `json:"outputs"`
	Workspace int               `json:"workspace_bytes"`
	Weights   int               `json:"weights_bytes"`
	Kernels   int               `json:"kernels"`
	Steps     []Step            `json:"steps"`
	Compiler  string            `json:"compiler"`
	Flags     []string          `json:"flags"`
	Hashes    map[string]string `json:"sha256"`
	Made      map[string]any    `json:"made,omitempty"`
}

// Step describes a kernel call, for profiles.
type Step struct {
	Kernel string `json:"kernel"`
	Family string `json:"family"`
	Values string `json:"values"`
	Node   string `json:"node,omitempty"`
	Flops  int64  `json:"flops"`
	Bytes  int64  `json:"bytes"`
}

func ports(ps []program.Port) []Port {
	out := []Port{}
	for _, p := range ps {
		s := p.Shape
		if s == nil {
			s = []int{}
		}
		out = append(out, Port{p.Name, p.Type.ONNX(), s})
	}
	return out
}

// Build writes an artifact into dir: libmodel.so, weights.bin, model.h,
// manifest.json, and the sources if they are to be kept.
func Build(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
	cc, err := toolchain.Find(o.Compiler)
	if err != nil {
		return err
	}
	srcs := csource.Program(p, o)
	flags := append(append([]string{}, common...), o.Traits.Flags...)
	if err := cc.Build(ctx, srcs, flags, []string{"-lm", "-lpthread", "-ldl"}, filepath.Join(dir, "libmodel.so"), o.CacheDir); err != nil {
		return err
	}
	if err := writeWeights(p, filepath.Join(dir, "weights.bin")); err != nil {
		return err
	}
	for _, s := range srcs {
		keep := s.Name == "model.h"
		path := filepath.Join(dir, s.Name)
		if o.KeepSource && !keep {
			if err := os.MkdirAll(filepath.Join(dir, "src"), 0o777); err != nil {
				return fault.New(fault.Usage, "cannot write the artifact: %w", err)
			}
			keep, path = true, filepath.Join(dir, "src", s.Name)
		}
		if keep {
			if err := os.WriteFile(path, s.Text, 0o666); err != nil {
				return fault.New(fault.Usage, "cannot write the artifact: %w", err)
			}
		}
	}
	m := Manifest{
		Format: 1, Name: o.Name, Symbol: csource.Identifier(o.Name), Target: "cpu", CPU: o.Traits.CPU, Arch: o.Traits.Arch,
		Threads: max(o.Threads, 1), Inputs: ports(p.Inputs), Outputs: ports(p.Outputs), Workspace: p.Workspace, Weights: p.Weights,
		Kernels: len(p.Kernels), Compiler: cc.Version, Flags: flags, Hashes: map[string]string{}, Made: o.Manifest,
	}
	for _, s := range p.Steps {
		m.Steps = append(m.Steps, Step{csource.KernelName(s.Kernel), s.Kernel.Family, s.Label, s.Origin, s.Kernel.Flops, s.Kernel.Bytes})
	}
	for _, f := range []string{"libmodel.so", "weights.bin", "model.h"} {
		if m.Hashes[f], err = hashFile(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), append(text, '\n'), 0o666); err != nil {
		return fault.New(fault.Usage, "cannot write the artifact: %w", err)
	}
	return nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeWeights writes the constants one after the other, each made when its
// turn comes.
func writeWeights(p *program.Program, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fault.New(fault.Usage, "cannot write the weights: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	at := 0
	fill := func(to int) error {
		var zero [4096]byte
		for at < to {
			n := min(to-at, len(zero))
			if _, err := w.Write(zero[:n]); err != nil {
				return err
			}
			at += n
		}
		return nil
	}
	for _, c := range p.Consts {
		b, err := c.Fill()
		if err != nil {
			return fmt.Errorf("weights of %s: %w", c.Buf.Name, err)
		}
		if len(b) != c.Buf.Size() {
			return fmt.Errorf("weights of %s: %d bytes, planned %d", c.Buf.Name, len(b), c.Buf.Size())
		}
		if err := fill(c.Buf.Offset); err != nil {
			return fault.New(fault.Usage, "cannot write the weights: %w", err)
		}
		if _, err := w.Write(b); err != nil {
			return fault.New(fault.Usage, "cannot write the weights: %w", err)
		}
		at += len(b)
	}
	if err := fill(p.Weights); err != nil {
		return fault.New(fault.Usage, "cannot write the weights: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fault.New(fault.Usage, "cannot write the weights: %w", err)
	}
	return f.Close()
}
