package onnx

// microsoft is the domain of ONNX Runtime's own ops, which exported and
// quantised models carry.
const microsoft = "com.microsoft"
