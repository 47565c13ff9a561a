// Package formats is the table of the weight file formats: which one a file
// has, and the tensors in it. The formats themselves are the packages below it.
//
// It must not know parallel layouts or models.
package formats
