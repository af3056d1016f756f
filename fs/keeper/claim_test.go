package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestClaim(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	first, err := newClaim(state, "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newClaim(state, "/a/b"); err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("the second is told %v", err)
	}
	other, err := newClaim(state, "/a-b")
	if err != nil {
		t.Errorf("another directory: %v", err)
	}
	if err := first.release(); err != nil {
		t.Error(err)
	}
	again, err := newClaim(state, "/a/b")
	if err != nil {
		t.Errorf("after it was given up: %v", err)
	}
	for _, c := range []*claim{other, again} {
		if err := c.release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// A file that a killed daemon left is no claim.
func TestClaimOfTheDead(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, "%2Fa.lock"), []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := newClaim(state, "/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.release(); err != nil {
		t.Error(err)
	}
}
