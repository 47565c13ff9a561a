package onnx

// allFamilies is the one place where a family's slice is added.
func allFamilies() [][]Op {
	return [][]Op{
		elementwiseOps,
		matmulOps, reduceOps, softmaxOps,
		controlOps, sequenceOps, attentionOps, linearAttentionOps,
	}
}
