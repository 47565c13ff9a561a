// Package atomicfile writes files and folders so that a reader sees the old
// content or the new, never half of it: a temporary sibling, synced, renamed.
//
// It must not know what is written. Unfinished temporaries are registered, so
// that an interrupted command can remove them.
package atomicfile
