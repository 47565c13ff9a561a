package onnx

// allFamilies is the one place where a family's slice is added.
func allFamilies() [][]Op {
	return [][]Op{
		elementwiseOps, activationOps, compareOps, castOps, constantOps, shapeOps, movementOps, padOps, gatherOps, scatterOps, orderOps,
		matmulOps, reduceOps, softmaxOps, convOps, poolOps, normOps, quantOps, qlinearOps, contribOps, fusedOps, randomOps, trainingOps,
		controlOps, sequenceOps, attentionOps, attentionContribOps, groupQueryOps, linearAttentionOps, recurrentOps, resizeOps, gridSampleOps, geometryOps, signalOps, textOps, mlOps, mlLinearOps, mlTreeOps, mlVectorOps, imageOps,
	}
}
