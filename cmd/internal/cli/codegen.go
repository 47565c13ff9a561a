package cli

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
)

// codegenFlags say how code is made of a model. Every command that compiles
// has the same ones: a new one is a field, a row of the table, and its use in
// program or build.
type codegenFlags struct {
	cpu       string
	precision string
	schedules string
	tolerance string
	layers    string // file with the precision of each layer
	compiler  string

	tuned  *scheduleBook // instead of the one that schedules names
	picked *layerModes   // by --tolerance
}

// codegenRow is a flag that says how code is made; "" means its default.
type codegenRow struct {
	name, usage string
	builds      bool // is about the C compiler: has no meaning where none runs
	at          func(*codegenFlags) *string
}

// codegenRows is the table of the flags, in the order of the help.
var codegenRows = []codegenRow{
	{"cpu", "CPU that code is made for: native, a level such as x86-64-v3 or a model such as sapphirerapids; compile takes several, such as x86-64-v3,x86-64-v4 (default native)", false,
		func(c *codegenFlags) *string { return &c.cpu }},
	{"precision", "arithmetic of f32 models: " + strings.Join(precision.Names(), ", ") + " (default f32)", false,
		func(c *codegenFlags) *string { return &c.precision }},
	{"schedules", "record book of lathe tune whose choices are taken, or auto for the default book (default: none)", false,
		func(c *codegenFlags) *string { return &c.schedules }},
	{"precisions", "file with a precision for each layer, as --tolerance finds them (precisions.json of an artifact)", false,
		func(c *codegenFlags) *string { return &c.layers }},
	{"tolerance", "relative error that outputs may have, such as 1e-4: each layer gets the fastest precision with which that holds on the inputs, measured against float64; --precision is the loosest then", true,
		func(c *codegenFlags) *string { return &c.tolerance }},
	{"cc", "C compiler (default: CC, gcc, clang)", true,
		func(c *codegenFlags) *string { return &c.compiler }},
}

// register adds the flags to a command that makes code.
func (c *codegenFlags) register(fl *pflag.FlagSet) {
	c.registerProgram(fl)
	for _, r := range codegenRows {
		if r.builds {
			fl.StringVar(r.at(c), r.name, "", r.usage)
		}
	}
}

// registerProgram adds those that say what the program is, to a command that
// stops before the C compiler.
func (c *codegenFlags) registerProgram(fl *pflag.FlagSet) {
	for _, r := range codegenRows {
		if !r.builds {
			fl.StringVar(r.at(c), r.name, "", r.usage)
		}
	}
}

// args are the flags again, for a second process.
func (c codegenFlags) args() []string {
	var list []string
	for _, r := range codegenRows {
		if v := *r.at(&c); v != "" {
			list = append(list, "--"+r.name, v)
		}
	}
	return list
}

// each gives the flags once for each CPU that --cpu names.
func (c codegenFlags) each() []codegenFlags {
	var list []codegenFlags
	for name := range strings.SplitSeq(c.cpu, ",") {
		one := c
		one.cpu = name
		list = append(list, one)
	}
	return list
}

// single holds that --cpu names one CPU.
func (c codegenFlags) single() error {
	if !strings.Contains(c.cpu, ",") {
		return nil
	}
	return fault.New(fault.Usage, "--cpu names several CPUs, here it can be one").Hint("lathe compile takes several into one artifact")
}

// program takes a core graph to a backend's program.
func (c codegenFlags) program(f *factory, b backend.Backend, g *ir.Graph, threads int) (*program.Program, backend.Traits, error) {
	t, err := b.Target(c.cpu)
	if err != nil {
		return nil, t, err
	}
	o, err := c.lowering(f, t, threads)
	if err != nil {
		return nil, t, err
	}
	p, err := compiler.Program(g, t, o)
	if err != nil {
		return nil, t, fmt.Errorf("lowering: %w", err)
	}
	return p, t, nil
}

// lowering are the compiler's options for a target, with the record book.
func (c codegenFlags) lowering(f *factory, t backend.Traits, threads int) (compiler.Options, error) {
	o, err := c.options()
	if err != nil {
		return o, err
	}
	o.Threads = threads
	book, err := c.records(f)
	if book != nil {
		o.Others = book.Choices(scheduleTarget(t, o.Precision, threads))
	}
	return o, err
}

// options are those of the compiler's that hold for every target.
func (c codegenFlags) options() (compiler.Options, error) {
	var o compiler.Options
	var err error
	if c.precision != "" {
		o.Precision, err = precision.Parse(c.precision)
	}
	if c.layers != "" && err == nil {
		c.picked, err = readLayerModes(c.layers)
	}
	if c.picked != nil {
		o.PrecisionAt = c.picked.at
	}
	return o, err
}

// loosest is the loosest precision that a layer may have.
func (c codegenFlags) loosest() (precision.Mode, error) {
	o, err := c.options()
	if err == nil && (o.PrecisionAt != nil || c.tolerance != "") {
		return precision.Modes[len(precision.Modes)-1].Mode, nil
	}
	return precision.Mode(o.Precision.String()), err
}

// build gives what a backend's Build is asked for.
func (c codegenFlags) build(f *factory, t backend.Traits, name string, threads int) (backend.Options, error) {
	cache, err := f.objectCache()
	return backend.Options{Name: name, Traits: t, Threads: threads, CacheDir: cache, Compiler: c.compiler}, err
}

// check holds that no flag is silently ignored by an engine.
func (c codegenFlags) check(e engine) error {
	for _, r := range codegenRows {
		if *r.at(&c) == "" {
			continue
		}
		why := ""
		b := compiledBackends[e.name]
		switch {
		case b == nil:
			why = "which makes no code"
		case r.builds && b().Emit == nil:
			why = "which runs no C compiler"
		default:
			continue
		}
		return fault.New(fault.Usage, "--%s has no meaning for the backend %s, %s", r.name, e.name, why).Hint("use it with --backend cpu")
	}
	if c.cpu == "" {
		return nil
	}
	if err := c.single(); err != nil {
		return err
	}
	t, err := compiledBackends[e.name]().Target(c.cpu)
	if err == nil && t.Arch == "any" {
		err = fault.New(fault.Usage, "--cpu has no meaning for the backend %s, which is the same everywhere", e.name).Hint("use it with --backend cpu")
	}
	if err == nil && t.Arch != runtime.GOARCH {
		err = fault.New(fault.Toolchain, "code for %s (%s) cannot run on this machine (%s)", t.CPU, t.Arch, runtime.GOARCH)
	}
	return err
}

// none holds that no flag is given for an artifact, whose code is made.
func (c codegenFlags) none(path string) error {
	for _, r := range codegenRows {
		if v := *r.at(&c); v != "" {
			return fault.New(fault.Usage, "--%s has no meaning for an artifact, whose code is made", r.name).InFile(path).Hint("compile the model with --%s %s", r.name, v)
		}
	}
	return nil
}
