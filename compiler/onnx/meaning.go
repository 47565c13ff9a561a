package onnx

// SameMeaning reports whether an op means the same in two opset versions of
// its domain: both select the same row and since-version.
func SameMeaning(domain, op string, a, b int) bool {
	if a == b {
		return true
	}
	row, va := Lookup(domain, op, a)
	_, vb := Lookup(domain, op, b)
	return row != nil && va == vb && va != 0
}
