// Package ui is how commands talk: data on stdout, talk on stderr, colour and
// progress only where a terminal listens.
//
// It must not know models or commands. Reading order: streams.go (who
// listens), talk.go (messages, JSON), table.go (aligned for people, tabs for
// pipes), progress.go (the only use of progressbar).
package ui
