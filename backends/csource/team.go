package csource

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/loop"
)

// team prints a loop that threads share within a kernel as a function of its
// own, which gets what it reads as pointers, and the region that runs it.
func (p *printer) team(f *loop.For, tiles *tilePrinter) {
	p.serial++
	name := fmt.Sprintf("%s_p%d", KernelName(p.kernel), p.serial)
	b, in := p.b, p.indent
	p.b, p.indent = &strings.Builder{}, "  "
	var args []string
	pass := func(q *loop.Buffer, c string) {
		p.line("%s%s *restrict const %s = a[%d]; (void)%s;", c, cType[q.Type], q.Name, len(args), q.Name)
		args = append(args, "(void *)"+q.Name)
	}
	for _, q := range p.kernel.Params {
		c := "const "
		if q.Out {
			c = ""
		}
		pass(q, c)
	}
	for _, q := range p.kernel.Locals {
		pass(q, "")
	}
	outer := []string{"0"}
	for i, v := range p.vars {
		p.line("const i64 %s = ((const i64 *)a[%d])[%d]; (void)%s;", v.Name, len(args), i+1, v.Name)
		outer = append(outer, v.Name)
	}
	share := *f
	share.Team, share.Par = false, true // over lo to hi
	p.onUnit([]loop.Stmt{&share}, tiles)
	fmt.Fprintf(&p.teams, "static void %s(void *const *a, i64 lo, i64 hi) {\n%s}\n", name, p.b)
	p.b, p.indent = b, in
	p.line("{")
	p.line("  const i64 outer[] = {%s};", strings.Join(outer, ", "))
	p.line("  void *const a[] = {%s, (void *)outer};", strings.Join(args, ", "))
	p.line("  if (lathe_threads_ == 1) %s(a, 0, %d);", name, f.Var.N)
	p.line("  else lathe_region(%s, a, %d);", name, f.Var.N)
	p.line("}")
	if p.rows > 0 && unitRows(f.Body, tiles.traits) > 0 {
		p.line("amx_config(%d);", p.rows) // its iterations may have run here, and have given the tiles back
	}
}
