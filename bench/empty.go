package main

import (
	"fmt"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// empty is the floor of lensfs' shared tree: the same library, mount options and open flags, and nothing to do for an answer. A file's text is
// the kernel's as it was at the start, so that as many bytes and requests go over as with the others.
type empty struct {
	fuse.RawFileSystem
	nodes []emptyNode // a node id is an index, plus one
}

type emptyNode struct {
	path       string // "" is the root
	dir        bool
	text, rest fuse.ReadResult // what a READ at 0 gives, and one behind the end
	size       uint64
}

// serveEmpty serves files on a directory until it is told to end: bench DIR FILE…
func serveEmpty(args []string) int {
	e := &empty{RawFileSystem: fuse.NewDefaultRawFileSystem(), nodes: []emptyNode{{dir: true}}}
	for _, file := range args[1:] {
		for i, c := range file {
			if c == '/' && e.find(file[:i]) == 0 {
				e.nodes = append(e.nodes, emptyNode{path: file[:i], dir: true})
			}
		}
		text, err := readText("/" + file)
		if err != nil {
			return fail(err)
		}
		e.nodes = append(e.nodes, emptyNode{path: file, text: staticText(text), rest: staticText(""), size: uint64(len(text))})
	}
	if err := e.serve(args[0]); err != nil {
		return fail(err)
	}
	return 0
}

// serve mounts as lensfs does. Where lensfs changes its options, these have to follow, or they are no floor.
func (e *empty) serve(dir string) error {
	const maxRead = 32 << 10
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, maxRead)
	if err := unix.Mount("empty", dir, "fuse.empty", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, options); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	server, err := fuse.NewServer(e, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite: maxRead, MaxBackground: 128,
		DisableXAttrs: true, DisableSplice: true, DisableReadDirPlus: true, SyncRead: true,
	})
	if err != nil {
		return err
	}
	server.Serve() // until SIGTERM ends us, and the mount with us
	return nil
}

// find gives the node id of a path, 0 for none.
func (e *empty) find(p string) uint64 {
	for i, n := range e.nodes {
		if n.path == p {
			return uint64(i + 1)
		}
	}
	return 0
}

const forever = 24 * time.Hour

func (e *empty) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.SetEntryTimeout(forever)
	if id := e.find(path.Join(e.nodes[in.NodeId-1].path, name)); id != 0 {
		out.NodeId = id
		out.SetAttrTimeout(forever)
		e.attr(id, &out.Attr)
	}
	return fuse.OK
}

// GetAttr is asked once: as in lensfs, attributes hold, or the kernel would want them at every open.
func (e *empty) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	e.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (e *empty) attr(id uint64, out *fuse.Attr) {
	n := e.nodes[id-1]
	out.Ino, out.Nlink, out.Blksize = id, 1, 4096
	if n.dir {
		out.Mode = syscall.S_IFDIR | 0o555
		return
	}
	out.Mode, out.Size = syscall.S_IFREG|0o444, n.size
}

func (e *empty) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (e *empty) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	n := e.nodes[in.NodeId-1]
	switch {
	case n.dir:
		return nil, fuse.EISDIR
	case in.Offset >= n.size:
		return n.rest, fuse.OK
	case in.Offset == 0 && uint64(in.Size) >= n.size:
		return n.text, fuse.OK
	}
	text := string(n.text.(staticText))
	return staticText(text[in.Offset:min(in.Offset+uint64(in.Size), n.size)]), fuse.OK
}

func (e *empty) String() string { return "empty" }

// staticText is a ReadResult made once: no allocation for a request.
type staticText []byte

func (s staticText) Bytes([]byte) ([]byte, fuse.Status) { return s, fuse.OK }
func (s staticText) Size() int                          { return len(s) }
func (s staticText) Done()                              {}
