package main
func (r *report) writeDoc(file string, goals []goal) error { return nil }
