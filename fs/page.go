package fs

import (
	"sync"
	"time"

	"lensfs/procview"
)

// page is what the kernel may keep of one file of one container's own view.
//
// The kernel reads a file's size after it has got hold of its page, and the two change one after the other. A reader in between would see a
// text cut off, or with zeros behind it. So:
//   - a READ fills the page with newlines behind the text;
//   - before a longer text is given out, the kernel's size is made to fit it (NOTIFY_STORE of a newline where the text will end);
//   - a shorter one keeps the size of the longest of the last second, and so has blank lines behind it for as long.
//
// Whenever the kernel looks, it sees one text and perhaps blank lines.
type page struct {
	mu      sync.Mutex
	text    []byte
	at      time.Time     // when the text was rendered: the file's mtime. Zero: never
	size    int           // as told to the kernel: at least len(text)
	growing bool          // a longer text is waiting for the kernel's size
	grown   chan struct{} // closed when it has it
	held    bool          // the kernel may have it, and is to drop it, see outdated
	looked  bool          // the text was only needed for a LOOKUP: the next who asks gets a new one

	since      time.Time // of the present second
	peak, last int       // longest text in it, and in the one before
}

// pageSize is the unit in which the kernel keeps files. What does not fit into one is not kept (see largeFiles): two pages may be of two texts.
const pageSize = 4096

// settle is how long no reader can be stuck between getting a page and reading the size.
const settle = time.Second

// publish makes the text of a snapshot the one that is given out. The page is locked.
func (p *page) publish(text []byte, at time.Time) {
	p.text = append(p.text[:0], text...)
	p.at = at
	if d := at.Sub(p.since); d > settle {
		p.last = 0
		if d < 2*settle {
			p.last = p.peak
		}
		p.peak, p.since = 0, at
	}
	p.peak = max(p.peak, len(text))
	p.size = max(p.peak, p.last)
}

// timeout is how long the kernel may go on without asking: as long as the text is not a tick old.
func (p *page) timeout(now time.Time) time.Duration {
	return max(0, procview.Tick-now.Sub(p.at))
}

// read copies the page's part from off, newlines behind the text included. The page is locked.
func (p *page) read(buf []byte, off uint64) int {
	end := uint64(p.size+pageSize-1) / pageSize * pageSize
	if off >= end {
		return 0
	}
	buf = buf[:min(uint64(len(buf)), end-off)]
	n := 0
	if off < uint64(len(p.text)) {
		n = copy(buf, p.text[off:])
	}
	blank(buf[n:])
	return len(buf)
}
