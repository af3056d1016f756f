// Package fs is the FUSE side of lensfs: the table of files, the requests, what outlives a worker. It alone knows go-fuse.
package fs

import (
	"cmp"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lensfs/cgroupview"
	"lensfs/fs/conn"
	"lensfs/fs/keeper"
	"lensfs/procview"
	"lensfs/sysview"
)

// Config is what an operator chooses of how the views are made, and the keeper tells each worker.
type Config struct {
	Views     Views
	CgroupDir bool // the tree has LXCFS's directory of cgroups, empty
	Debug     bool // write every request to the log
}

// Views is how the views are made, the same for every container.
type Views struct {
	Quota     cgroupview.QuotaMode // what a CPU quota does to the number of CPUs
	NoSwap    bool                 // no container has swap
	NoZswap   bool
	NoLoadavg bool   // nobody samples the containers' load: they see the host's averages
	HideCPUs  bool   // a container's other CPUs do not exist for it, instead of being switched off
	Root      string // "" is "/"; tests give a tree of files
	Host      string // where the host's own texts are taken from, "" being Root; benchmarks show a larger host than they run on
}

// Worker answers the requests of both mounts. It is made by Prepare, begins with Serve, and may end at any moment: what has to outlive it is in memory
// and files that it is handed over.
type Worker struct {
	Stats Stats

	cfg     Config
	tree    *tree
	large   largeFiles
	render  *renderer
	own     *own
	ended   chan struct{} // closed when the kernel has ended the connection of the shared tree
	stop    chan struct{}
	stopped sync.WaitGroup
}

// Prepare does all that can be done beside another worker which serves.
func Prepare(cfg Config) (*Worker, error) {
	resolver, host, err := cfg.Views.open()
	if err != nil {
		return nil, err
	}
	cpus, err := cfg.Views.openCPUs()
	if err != nil {
		return nil, err
	}
	w := &Worker{cfg: cfg, tree: newTree(files, host, cfg.CgroupDir), ended: make(chan struct{}), stop: make(chan struct{})}
	w.render = &renderer{resolver: resolver, host: host, cpus: cpus, stats: &w.Stats}
	if w.large, err = w.render.findLarge(w.tree); err != nil {
		return nil, err
	}
	return w, nil
}

// Serve goes on where the worker before ended, which must have. When it returns without an error, requests are answered.
func (w *Worker) Serve(h keeper.Handover, d keeper.Descriptors) error {
	kept, err := openOpened(d[keeper.FdOpened], d[keeper.FdTexts])
	if err != nil {
		return err
	}
	w.Unveil(h.Unveiled)
	resolver := w.render.resolver
	if w.render.keep, err = openKeep(keeper.StateFile(h.StateDir, h.Tree.Dir, "kept"), resolver.MaxCPUs(), resolver.Runs); err != nil {
		return err
	}
	shared, err := w.connect(d[keeper.FdTree], d[keeper.FdTreeRequests], newShared(w.tree, w.render, w.large, kept))
	if err != nil {
		return fmt.Errorf("%s: %w", h.Tree.Dir, err)
	}
	if h.Views != nil {
		if err := w.serveOwn(h, d); err != nil {
			return fmt.Errorf("%s: %w", h.Views.Dir, err)
		}
	}
	go func() {
		shared.Serve()
		close(w.ended)
	}()
	w.stopped.Go(w.recallThenSweep)
	if !w.cfg.Views.NoLoadavg {
		w.stopped.Go(func() { resolver.SampleLoadsUntil(w.stop) })
	}
	return nil
}

func (w *Worker) connect(fd, requests int, handler conn.Handler) (*conn.Conn, error) {
	slots, err := conn.OpenSlots(requests)
	if err != nil {
		return nil, err
	}
	return conn.New(fd, slots, handler, &w.Stats.Conn, w.cfg.Debug)
}

// serveOwn serves the containers' own views.
func (w *Worker) serveOwn(h keeper.Handover, d keeper.Descriptors) error {
	o := &own{tree: w.tree, render: w.render, shared: h.Tree.Dir, direct: w.large}
	c, err := w.connect(d[keeper.FdViews], d[keeper.FdViewsRequests], o)
	if err != nil {
		return err
	}
	if o.records, err = openRecords(keeper.StateFile(h.StateDir, h.Views.Dir, "table"), w.render.recall); err != nil {
		return err
	}
	o.notify, w.own = c, o
	o.outdated = newOutdated(c.NewDropper())
	o.dropKept()
	w.stopped.Go(func() { o.outdated.dropUntil(w.stop) })
	go c.Serve()
	return nil
}

// open opens what the views are made of.
func (v Views) open() (*cgroupview.Resolver, *procview.Host, error) {
	root := cmp.Or(v.Root, "/")
	from := cmp.Or(v.Host, root)
	resolver, err := cgroupview.New(cgroupview.Options{Root: root, CPUs: filepath.Join(from, cpuDirPath), Quota: v.Quota, HideCPUs: v.HideCPUs})
	if err != nil {
		return nil, nil, err
	}
	host, err := procview.NewHost(procview.Options{Root: from, NoSwap: v.NoSwap, NoZswap: v.NoZswap, NoLoadavg: v.NoLoadavg}, resolver)
	if err != nil {
		return nil, nil, err
	}
	return resolver, host, nil
}

// openCPUs opens the host's directory of CPUs.
func (v Views) openCPUs() (*sysview.Dir, error) {
	return sysview.Open(filepath.Join(cmp.Or(v.Host, v.Root, "/"), cpuDirPath), v.HideCPUs)
}

// sweepEvery is how soon an ended container is forgotten.
const sweepEvery = 5 * time.Second

func (w *Worker) recallThenSweep() {
	if w.own != nil {
		w.own.records.findAll(w.own.ended)
	}
	w.render.recallKept()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
			w.render.sweep(func(v *view) {
				if w.own != nil {
					w.own.ended(v)
				}
			})
		}
	}
}

// View says which container a process is in, and makes sure that this has its own view, as if the process had followed the link "self".
func (w *Worker) View(pid uint32) (keeper.View, error) {
	v := w.render.of(pid)
	if v.container.IsHost() {
		return keeper.View{}, nil
	}
	view := keeper.View{Container: v.container.Name, Init: v.container.ID().Init}
	if w.own == nil {
		return view, nil
	}
	rec, err := w.own.records.of(v)
	if err != nil {
		return view, err
	}
	view.Container = rec.name
	return view, nil
}

// Unveil has every container shown the host's own values from now on, or its own again.
func (w *Worker) Unveil(host bool) { w.render.unveiled.Store(host) }

// String says what the worker found, for the log.
func (w *Worker) String() string { return w.render.resolver.String() }

// Ended is closed when the kernel has ended the connection: somebody unmounted the tree and the last container that used it has gone, or it was aborted.
func (w *Worker) Ended() <-chan struct{} { return w.ended }

// Close ends what goes on beside the requests. These are answered until the process ends.
func (w *Worker) Close() error {
	close(w.stop)
	w.stopped.Wait()
	if w.render.keep == nil {
		return nil
	}
	return w.render.keep.close()
}
