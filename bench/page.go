package main
func (r *report) writePage(dir string, goals []goal) error { return nil }
