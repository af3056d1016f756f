package fs

import "sync"

// handle is one open file of the shared tree. A reader who takes several reads for one text gets all of it from one snapshot.
type handle struct {
	mu   sync.Mutex
	fh   uint64
	kept *opened // nil: nothing of it outlives us
	size int     // of the text last read from the beginning; 0: none yet
	text []byte  // that text, kept as long as the reader has not seen its end
}

// handles numbers the open files. A number that is not known (a daemon before us gave it) gets a handle that goes on from what was kept of it.
type handles struct {
	mu   sync.Mutex
	open map[uint64]*handle
	pool sync.Pool
	kept *opened
}

// maxKept is the largest text that a closed handle's buffer is kept for.
const maxKept = 64 << 10

func newHandles(kept *opened) *handles {
	return &handles{open: map[uint64]*handle{}, kept: kept, pool: sync.Pool{New: func() any { return &handle{} }}}
}

// add opens a new handle and gives its number.
func (t *handles) add() uint64 {
	h := t.pool.Get().(*handle)
	t.mu.Lock()
	defer t.mu.Unlock()
	h.fh, h.kept = t.kept.add(), t.kept
	t.open[h.fh] = h
	return h.fh
}

func (t *handles) get(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.open[fh]
	if h == nil {
		h = &handle{fh: fh, kept: t.kept}
		h.size, h.text = t.kept.seen(fh)
		t.open[fh] = h
	}
	return h
}

func (t *handles) release(fh uint64) {
	t.mu.Lock()
	h := t.open[fh]
	delete(t.open, fh)
	t.kept.release(fh)
	t.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock() // nobody reads any more; but that is the kernel's word only
	h.size, h.text = 0, h.text[:0]
	keep := cap(h.text) <= maxKept
	h.mu.Unlock()
	if keep {
		t.pool.Put(h)
	}
}

// read copies the text from off into buf and says how many bytes. At the beginning, and where nothing is known of what this reader saw last,
// it takes the snapshot that lock gives (procps holds its files open and seeks back to 0 for fresh numbers).
func (h *handle) read(buf []byte, off uint64, lock func() (*snapshot, error)) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n, ok := h.rest(buf, off); ok {
		return n, nil
	}
	s, err := lock()
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	n, more := h.begin(buf, off, s.text)
	h.kept.begun(h.fh, s.text, more)
	if h.text = h.text[:0]; more {
		h.text = append(h.text, s.text...)
	}
	return n, nil
}

// readText is read for a text that is made for this reader alone: render appends it.
func (h *handle) readText(buf []byte, off uint64, render func(dst []byte) ([]byte, error)) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n, ok := h.rest(buf, off); ok {
		return n, nil
	}
	text, err := render(h.text[:0])
	h.size, h.text = 0, text[:0]
	if err != nil {
		return 0, err
	}
	n, more := h.begin(buf, off, text)
	h.kept.begun(h.fh, text, more)
	if more {
		h.text = text
	}
	return n, nil
}

// rest goes on with the text that this reader has begun; not ok where there is none.
func (h *handle) rest(buf []byte, off uint64) (n int, ok bool) {
	if off == 0 || h.size == 0 {
		return 0, false
	}
	if off >= uint64(h.size) {
		h.kept.ended(h.fh) // not before: an answer with the last part may have to be given again by the next daemon
		return 0, true
	}
	if len(h.text) == 0 {
		return 0, false
	}
	n = copy(buf, h.text[off:])
	if int(off)+n == h.size {
		h.text = h.text[:0]
	}
	return n, true
}

// begin copies from a new text, and says whether there is more of it to come.
func (h *handle) begin(buf []byte, off uint64, text []byte) (n int, more bool) {
	h.size = len(text)
	if off >= uint64(h.size) {
		return 0, false
	}
	n = copy(buf, text[off:])
	return n, int(off)+n < h.size
}
