package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The files that every artifact has.
const (
	ManifestFile = "manifest.json"
	WeightsFile  = "weights.bin"
)

// Format is the version of manifests.
const Format = 1

// Port is an input or output in the manifest.
type Port struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
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

// Variant is what differs between code for several CPUs.
type Variant struct {
	CPU       string   `json:"cpu"`
	Features  []string `json:"features"`
	Flags     []string `json:"flags"`
	Workspace int      `json:"workspace_bytes"`
	Kernels   int      `json:"kernels"`
	Steps     []Step   `json:"steps"`
}

// Manifest is manifest.json. What variants have on their own is that of the
// first, but the CPU, which names all, and the features, which all need.
type Manifest struct {
	Format    int               `json:"format"`
	Name      string            `json:"name"`
	Symbol    string            `json:"symbol"`
	Target    string            `json:"target"`
	CPU       string            `json:"cpu"`
	Arch      string            `json:"arch"`
	Features  []string          `json:"features"` // instruction sets that the code needs
	Threads   int               `json:"threads"`
	Inputs    []Port            `json:"inputs"`
	Outputs   []Port            `json:"outputs"`
	Workspace int               `json:"workspace_bytes"`
	Weights   int               `json:"weights_bytes"`
	Kernels   int               `json:"kernels"`
	Steps     []Step            `json:"steps"`
	Compiler  string            `json:"compiler"`
	Flags     []string          `json:"flags"`
	Pin       string            `json:"pin,omitempty"`
	Variants  []Variant         `json:"variants,omitempty"` // of code for several CPUs, best first
	Hashes    map[string]string `json:"sha256"`
	Made      map[string]any    `json:"made,omitempty"`
}

// New describes programs that a backend built, for one CPU or several; the
// backend adds what is its own.
func New(vs []backend.Variant, target string, o backend.Options) *Manifest {
	p, first := vs[0].Program, variant(vs[0])
	m := &Manifest{
		Format: Format, Name: o.Name, Target: target, CPU: first.CPU, Arch: vs[0].Traits.Arch,
		Features: first.Features, Threads: max(o.Threads, 1), Inputs: ports(p.Inputs), Outputs: ports(p.Outputs),
		Workspace: p.Workspace, Weights: p.Weights, Kernels: len(p.Kernels), Steps: first.Steps,
		Flags: first.Flags, Pin: o.Pin, Hashes: map[string]string{}, Made: o.Manifest,
	}
	if len(vs) == 1 {
		return m
	}
	var names []string
	for _, v := range vs {
		names = append(names, v.Traits.CPU)
		m.Variants = append(m.Variants, variant(v))
		m.Features = slices.DeleteFunc(slices.Clone(m.Features), func(f string) bool { return !slices.Contains(v.Traits.Needs(), f) })
	}
	m.CPU, m.Flags = strings.Join(names, ","), []string{}
	return m
}

func variant(v backend.Variant) Variant {
	out := Variant{
		CPU: v.Traits.CPU, Features: append([]string{}, v.Traits.Needs()...), Flags: append([]string{}, v.Traits.Flags...),
		Workspace: v.Program.Workspace, Kernels: len(v.Program.Kernels), Steps: []Step{},
	}
	for _, s := range v.Program.Steps {
		out.Steps = append(out.Steps, Step{KernelName(s.Kernel.Family, s.Kernel.String()), s.Kernel.Family, s.Label, s.Origin, s.Kernel.Flops, s.Kernel.Bytes})
	}
	return out
}

// Of gives the manifest of one variant, as if the artifact had no other.
func (m *Manifest) Of(i int) *Manifest {
	if i < 0 || i >= len(m.Variants) {
		return m
	}
	v, one := m.Variants[i], *m
	one.CPU, one.Features, one.Flags = v.CPU, v.Features, append(slices.Clone(m.Flags), v.Flags...)
	one.Workspace, one.Kernels, one.Steps, one.Variants = v.Workspace, v.Kernels, v.Steps, nil
	return &one
}

// KernelName names a kernel by its family and a hash of what it computes.
func KernelName(family, text string) string {
	h := sha256.Sum256([]byte(text))
	return "k_" + family + "_" + hex.EncodeToString(h[:8])
}

func ports(ps []program.Port) []Port {
	out := []Port{}
	for _, p := range ps {
		out = append(out, Port{p.Name, p.Type.ONNX(), append([]int{}, p.Shape...)})
	}
	return out
}

// Ports gives the signature of manifest entries.
func Ports(ps []Port) ([]program.Port, error) {
	var out []program.Port
	for _, p := range ps {
		d, ok := tensor.ParseDType(p.Type)
		if !ok {
			return nil, fault.New(fault.BadModel, "unknown element type %q in the manifest", p.Type)
		}
		if _, err := tensor.Count(p.Shape); err != nil {
			return nil, fault.New(fault.BadModel, "shape of %q in the manifest: %w", p.Name, err)
		}
		out = append(out, program.Port{Name: p.Name, Type: d, Shape: p.Shape})
	}
	return out, nil
}

// Write hashes the artifact's files and writes the manifest beside them.
func (m *Manifest) Write(dir string, files ...string) error {
	for _, f := range files {
		h, err := HashFile(filepath.Join(dir, f))
		if err != nil {
			return fault.New(fault.Usage, "cannot read back the artifact: %w", err)
		}
		m.Hashes[f] = h
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fault.New(fault.Usage, "cannot write the manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ManifestFile), append(text, '\n'), 0o666); err != nil {
		return fault.New(fault.Usage, "cannot write the artifact: %w", err)
	}
	return nil
}

// Read reads an artifact's manifest.
func Read(dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.BadModel, "not an artifact: %w", err).InFile(dir).Hint("lathe compile MODEL -o DIR makes one")
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fault.New(fault.BadModel, "broken manifest: %w", err).InFile(path)
	}
	if m.Format != Format {
		return nil, fault.New(fault.BadModel, "manifest format %d is not known", m.Format).InFile(path).Hint("compile the model again")
	}
	return &m, nil
}

// HashFile is the SHA-256 of a file, in hex.
func HashFile(path string) (string, error) {
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

// CheckTensors verifies that tensors are those of a signature; kind is "input"
// or "output".
func CheckTensors(kind string, ports []program.Port, ts []*tensor.Tensor) error {
	if len(ts) != len(ports) {
		return fault.New(fault.Usage, "the model has %d %ss, %d are given", len(ports), kind, len(ts))
	}
	for i, p := range ports {
		if ts[i].DType != p.Type || tensor.ShapeString(ts[i].Shape) != tensor.ShapeString(p.Shape) {
			return fault.New(fault.BadModel, "%s %q is %s%s, got %s", kind, p.Name, p.Type, tensor.ShapeString(p.Shape), ts[i])
		}
	}
	return nil
}
