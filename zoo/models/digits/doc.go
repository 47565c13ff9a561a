// Package digits makes the model that lathe ships: a small convolutional
// network that reads handwritten-looking digits, trained from scratch on images
// that the package renders itself.
//
// The same source gives the same bytes on every machine: all randomness is
// seeded, sums have a fixed order whatever the number of processors, products
// are rounded before they are added (Go may fuse them otherwise), and the few
// functions beyond arithmetic are computed here. The package must not know
// compilers or backends; its tests do. Reading order: glyphs.go and render.go
// (images), net.go (the layers and their gradients), train.go, export.go.
package digits
