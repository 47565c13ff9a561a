package checkpoint

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// show prints a value of a pickle, tensors by type and shape.
func show(v torch.Value) string {
	var b strings.Builder
	var walk func(v torch.Value, in string)
	walk = func(v torch.Value, in string) {
		switch x := v.(type) {
		case *torch.Dict:
			for _, kv := range x.Pairs() {
				fmt.Fprintf(&b, "\n%s%v:", in, kv.Key)
				walk(kv.Value, in+" ")
			}
		case *torch.List:
			for _, it := range x.Items {
				b.WriteString("\n" + in + "-")
				walk(it, in+" ")
			}
		case *torch.Tuple:
			b.WriteString("(")
			for _, it := range x.Items {
				walk(it, in)
			}
			b.WriteString(")")
		case *torch.Object:
			b.WriteString(x.Class.String())
			if x.Args != nil {
				walk(x.Args, in)
			}
			walk(x.State, in+" ")
		case *torch.Class:
			b.WriteString(x.String())
		case *torch.Tensor:
			fmt.Fprintf(&b, " %s%v", x.DType, x.Shape)
		default:
			fmt.Fprintf(&b, " %v", v)
		}
	}
	walk(v, "")
	return b.String()
}
