package torch

// Named is a tensor and its path inside the values of a file, keys joined by
// slashes: "optimizer_state_dict/base_optimizer_state/state/0/exp_avg".
type Named struct {
	Path   string
	Tensor *Tensor
}

// Tensors lists every tensor below a value by path, in order.
func Tensors(root Value) ([]Named, error) { return nil, nil }
