package onnx

import (
	"slices"
	"sort"
)

// Op is one row: the meaning of an ONNX op.
type Op struct {
	Domain string // "" is ai.onnx
	Name   string
	// Since lists the opset versions at which the op's meaning or signature
	// changed, ascending. A node means the newest of them that its opset has.
	Since []int
	// Expand builds the op from core ops. Ops whose result has a shape that
	// depends on data, or that work on strings, ask for constant operands
	// (Ctx.Tensor): they run in the evaluator and are refused by compilers.
	Expand func(c *Ctx)
}

// families lists the rows; each family's file holds its slice. Filled in init
// because rows with subgraphs refer to the expansion, which looks rows up.
var families [][]Op

type opKey struct{ domain, name string }

var table = map[opKey]*Op{}

// newest is the latest opset version of each domain that the rows describe. What
// a later one means is not known, even where it changed nothing.
var newest = map[string]int{}

func init() {
	families = allFamilies()
	for _, f := range families {
		for i := range f {
			o := &f[i]
			k := opKey{o.Domain, o.Name}
			if table[k] != nil {
				panic("BUG: ONNX op " + o.Name + " has two rows")
			}
			if len(o.Since) == 0 || !slices.IsSorted(o.Since) {
				panic("BUG: ONNX op " + o.Name + " has bad since-versions")
			}
			table[k] = o
			newest[o.Domain] = max(newest[o.Domain], o.Since[len(o.Since)-1])
		}
	}
}

// canonical folds the two spellings of ONNX's own domain.
func canonical(domain string) string {
	if domain == "ai.onnx" {
		return ""
	}
	return domain
}

// Lookup finds the row of an op and the since-version that an opset selects;
// version 0 if the op did not exist yet.
func Lookup(domain, name string, opset int) (o *Op, version int) {
	o = table[opKey{canonical(domain), name}]
	if o == nil {
		return nil, 0
	}
	for _, v := range o.Since {
		if v <= opset {
			version = v
		}
	}
	return o, version
}

// Table lists all rows, sorted by domain and name.
func Table() []*Op {
	var all []*Op
	for _, o := range table {
		all = append(all, o)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Domain != all[j].Domain {
			return all[i].Domain < all[j].Domain
		}
		return all[i].Name < all[j].Name
	})
	return all
}
