package onnx

// elementwiseOps compute each output element from the input elements at its
// place, with numpy broadcasting.
var elementwiseOps = []Op{
	{Name: "Relu", Since: []int{1, 6, 13, 14}, Expand: func(c *Ctx) { c.Out(0, c.B.Relu(c.In(0))) }},
}
