package cli

import (
	"strings"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// variantInfo is the code for one CPU in --json.
type variantInfo struct {
	CPU       string   `json:"cpu"`
	Features  []string `json:"features"`
	Workspace int      `json:"workspace_bytes"`
	Kernels   int      `json:"kernels"`
	Steps     int      `json:"steps"`
	Lacks     []string `json:"lacks"` // what this machine does not have of the features
}

// artifactInfo is what `lathe inspect ARTIFACT --json` prints.
type artifactInfo struct {
	Artifact string            `json:"artifact"`
	Name     string            `json:"name"`
	Target   string            `json:"target"`
	Arch     string            `json:"arch"`
	Variants []variantInfo     `json:"variants"`
	Threads  int               `json:"threads"`
	Pin      string            `json:"pin,omitempty"`
	Inputs   []artifact.Port   `json:"inputs"`
	Outputs  []artifact.Port   `json:"outputs"`
	Weights  int               `json:"weights_bytes"`
	Compiler string            `json:"compiler,omitempty"`
	Hashes   map[string]string `json:"sha256"`
	Made     map[string]any    `json:"made,omitempty"`
}

// artifact says what an artifact is: what it takes and gives, and which CPUs it
// has code for, the best first.
func (o *inspectOptions) artifact() error {
	if o.nodes || o.text || o.core {
		return fault.New(fault.Usage, "an artifact has no graph").InFile(o.model).Hint("inspect the model that it was made of")
	}
	m, err := artifact.Read(o.model)
	if err != nil {
		return err
	}
	info := artifactInfo{
		Artifact: o.model, Name: m.Name, Target: m.Target, Arch: m.Arch, Threads: m.Threads, Pin: m.Pin, Inputs: m.Inputs, Outputs: m.Outputs,
		Weights: m.Weights, Compiler: m.Compiler, Hashes: m.Hashes, Made: m.Made,
	}
	for i := range max(1, len(m.Variants)) {
		v := m.Of(i)
		info.Variants = append(info.Variants, variantInfo{v.CPU, v.Features, v.Workspace, v.Kernels, len(v.Steps), append([]string{}, cpuid.Lacks(v.Features)...)})
	}
	if o.json {
		return o.JSON(info)
	}
	t := o.Table("what", "value")
	t.Row("artifact", info.Artifact)
	t.Row("made of", info.Name+" for "+info.Target+", "+info.Arch)
	for _, v := range info.Variants {
		state := ""
		if len(v.Lacks) > 0 {
			state = "; this machine has no " + strings.Join(v.Lacks, ", ")
		}
		t.Row("code for", v.CPU+": "+itoa(v.Kernels)+" kernels, called "+itoa(v.Steps)+" times, workspace "+bytesText(int64(v.Workspace))+state)
	}
	for _, p := range info.Inputs {
		t.Row("input", p.Name+" "+p.Type+tensor.ShapeString(p.Shape))
	}
	for _, p := range info.Outputs {
		t.Row("output", p.Name+" "+p.Type+tensor.ShapeString(p.Shape))
	}
	t.Row("weights", bytesText(int64(info.Weights)))
	threads := itoa(info.Threads)
	if info.Pin != "" {
		threads += ", pinned: " + info.Pin
	}
	t.Row("threads", threads)
	if info.Compiler != "" {
		t.Row("compiler", info.Compiler)
	}
	t.Print()
	return nil
}
