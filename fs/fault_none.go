//go:build !faults

package fs

// fault does nothing: only a binary built for the tests of poisonous requests has faults.
func fault(*file) {}

func faultHeld(*file) {}
