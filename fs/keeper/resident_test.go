package keeper

import (
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// What is taken away comes back when it is needed, as it was: this test goes on.
func TestForgetStart(t *testing.T) {
	self, err := procfs.Self()
	if err != nil {
		t.Fatal(err)
	}
	resident := func() uint64 {
		s, err := self.NewStatus()
		if err != nil {
			t.Fatal(err)
		}
		return s.RssFile
	}
	if err := advise(unix.MADV_POPULATE_READ); err != nil {
		t.Fatal(err)
	}
	before := resident()
	if err := ForgetStart(); err != nil {
		t.Fatal(err)
	}
	after := resident()
	t.Logf("of the program's file in memory: %d kB before, %d after", before>>10, after>>10)
	if after > before*2/3 {
		t.Errorf("%d kB of the program's file are in memory, %d were before", after>>10, before>>10)
	}
}
