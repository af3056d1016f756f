package oci

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	views := t.TempDir()
	self := filepath.Join(views, "self")
	if Watch(t.Context(), views).Now() {
		t.Error("nobody serves there")
	}
	if err := os.Symlink("ct/1", self); err != nil { // what a daemon has there
		t.Fatal(err)
	}
	s := Watch(t.Context(), views)
	if !s.Now() {
		t.Error("the first answer was not waited for")
	}
	for _, serves := range []bool{false, true} {
		if serves {
			if err := os.Symlink("ct/2", self); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(self); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); s.Now() != serves; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("does a daemon serve? %v, a minute long", !serves)
			}
		}
	}
}
