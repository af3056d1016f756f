package fs

import "sync"

// handle is one open file of the shared tree. A reader who takes several reads for one text gets all of it from one snapshot.
type handle struct {
	mu   sync.Mutex
	size int    // of the text last read from the beginning; 0: none yet
	text []byte // that text, kept as long as the reader has not seen its end
}

// handles numbers the open files. A number that is not known (a daemon before us gave it) gets a new handle.
type handles struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*handle
	pool sync.Pool
}

// maxKept is the largest text that a closed handle's buffer is kept for.
const maxKept = 64 << 10

func newHandles() *handles {
	return &handles{open: map[uint64]*handle{}, pool: sync.Pool{New: func() any { return &handle{} }}}
}

// add opens a new handle and gives its number.
func (t *handles) add() uint64 {
	h := t.pool.Get().(*handle)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.open[t.last] = h
	return t.last
}

func (t *handles) get(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.open[fh]
	if h == nil {
		h = &handle{}
		t.open[fh] = h
	}
	return h
}

func (t *handles) release(fh uint64) {
	t.mu.Lock()
	h := t.open[fh]
	delete(t.open, fh)
	t.mu.Unlock()
	if h == nil {
		return
	}
	h.size, h.text = 0, h.text[:0]
	if cap(h.text) <= maxKept {
		t.pool.Put(h)
	}
}

// read copies the text from off into buf and says how many bytes. At the beginning, and where nothing is known of what this reader saw last,
// it takes the snapshot that lock gives (procps holds its files open and seeks back to 0 for fresh numbers).
func (h *handle) read(buf []byte, off uint64, lock func() (*snapshot, error)) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off > 0 && h.size > 0 {
		if off >= uint64(h.size) {
			return 0, nil
		}
		if len(h.text) > 0 {
			n := copy(buf, h.text[off:])
			if int(off)+n == h.size {
				h.text = h.text[:0]
			}
			return n, nil
		}
	}
	s, err := lock()
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	h.size = len(s.text)
	h.text = h.text[:0]
	if off >= uint64(h.size) {
		return 0, nil
	}
	n := copy(buf, s.text[off:])
	if int(off)+n < h.size {
		h.text = append(h.text, s.text...)
	}
	return n, nil
}
