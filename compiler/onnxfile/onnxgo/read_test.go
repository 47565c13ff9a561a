package onnxgo

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/internal/shared"
)

// plain takes from a graph what onnx-go does not hand over: node names, notes,
// the order of attributes, descriptions, and types beside those of the inputs.
func plain(g *ir.Graph) {
	g.Doc, g.Meta, g.Extra, g.Infos = "", nil, nil, nil
	isInput := map[*ir.Value]bool{}
	for _, v := range g.Inputs {
		isInput[v] = true
		v.Doc, v.Meta, v.Extra, v.Type.Denotation = "", nil, nil, ""
		for i := range v.Type.Shape {
			v.Type.Shape[i].Denotation = ""
		}
	}
	for _, v := range g.Inits {
		v.Type = ir.TensorType(v.Const.DType, v.Const.Shape...)
		v.Doc, v.Meta, v.Extra = "", nil, nil
	}
	for _, n := range g.Nodes {
		n.Name, n.Doc, n.Domain, n.Meta, n.Extra = "", "", "", nil, nil
		slices.SortFunc(n.Attrs, func(a, b ir.Attr) int { return strings.Compare(a.Name, b.Name) })
		for i := range n.Attrs {
			n.Attrs[i].Doc, n.Attrs[i].Extra = "", nil
		}
		for _, v := range n.Outputs {
			if v != nil {
				v.Type, v.Doc, v.Meta, v.Extra = ir.Type{}, "", nil, nil
			}
		}
	}
}

// For every shared model that both can read, both give the same graph.
func TestBothReadersAgree(t *testing.T) {
	for sub, least := range map[string]int{"models": 33, "onnx-backend-tests": 1472} {
		both, refused := 0, map[string]int{}
		err := filepath.WalkDir(filepath.Join(shared.Dir(t), sub), func(p string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(p, ".onnx") {
				return err
			}
			theirs, err := Read(p)
			if err != nil {
				if !fault.Is(err, fault.Unsupported) {
					t.Errorf("%v", err)
				}
				refused[reason(err)]++
				return nil
			}
			ours, err := onnxfile.Read(p, onnxfile.Options{})
			if err != nil {
				return err
			}
			plain(ours.Graph)
			plain(theirs.Graph)
			if a, b := ir.Print(ours.Graph), ir.Print(theirs.Graph); a != b {
				t.Errorf("%s: lathe's reader gives\n%sonnx-go's\n%s", p, a[:min(len(a), 1500)], b[:min(len(b), 1500)])
			}
			if ours.Opset("") != theirs.Opset("") || ours.IRVersion != theirs.IRVersion {
				t.Errorf("%s: versions differ", p)
			}
			both++
			return ours.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d models read by both and equal", sub, both)
		keys := make([]string, 0, len(refused))
		for k := range refused {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			t.Logf("%s: %d refused: %s", sub, refused[k], k)
		}
		if both < least {
			t.Errorf("%s: %d models were compared, %d can be", sub, both, least)
		}
	}
}

// reason is an error without the names in it.
func reason(err error) string {
	s := err.Error()
	if i := strings.Index(s, "onnx-go"); i >= 0 {
		s = s[i:]
	}
	if i := strings.IndexByte(s, '"'); i >= 0 {
		s = s[:i]
	}
	return s[:min(len(s), 110)]
}
