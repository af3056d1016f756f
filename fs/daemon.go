// Package fs is the FUSE side of lensfs: the table of files, the requests, the mounts. It alone knows go-fuse.
package fs

import (
	"cmp"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lensfs/cgroupview"
	"lensfs/fs/conn"
	"lensfs/procview"
	"lensfs/sysview"
)

// Config is what an operator chooses.
type Config struct {
	Tree     string // where the shared tree is mounted
	OwnViews string // where each container's own view is mounted; "" for none
	OwnSpare bool   // do without own views where they cannot be had
	StateDir string // where claims and the table of containers are kept
	Views    Views

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

// Daemon serves. It is made by Start and ended by Close.
type Daemon struct {
	Stats Stats

	claims  []*claim
	mounts  []*mountpoint // the shared tree first
	table   *table
	render  *renderer
	own     *own
	stop    chan struct{}
	stopped sync.WaitGroup
}

// Start claims the directories, mounts and serves. When it returns without an error, the files can be read.
func Start(cfg Config) (*Daemon, error) {
	resolver, host, err := cfg.Views.open()
	if err != nil {
		return nil, err
	}
	cpus, err := cfg.Views.openCPUs()
	if err != nil {
		return nil, err
	}
	d := &Daemon{stop: make(chan struct{})}
	d.render = &renderer{resolver: resolver, host: host, cpus: cpus, stats: &d.Stats}
	if err := d.mountAll(cfg); err != nil {
		return nil, errors.Join(err, d.release())
	}
	for _, m := range d.mounts {
		m.serve()
	}
	d.stopped.Go(d.sweepNowAndThen)
	if !cfg.Views.NoLoadavg {
		d.stopped.Go(func() { resolver.SampleLoadsUntil(d.stop) })
	}
	return d, nil
}

func (d *Daemon) mountAll(cfg Config) error {
	tree := newTree(files, d.render.host, cfg.CgroupDir)
	large, err := d.render.findLarge(tree)
	if err != nil {
		return err
	}
	shared, err := d.mount(cfg, cfg.Tree, newShared(tree, d.render, large))
	if err != nil {
		return err
	}
	if d.render.keep, err = openKeep(stateFile(cfg, shared.dir, "kept"), d.render.resolver.MaxCPUs(), d.render.resolver.Runs); err != nil {
		return err
	}
	if cfg.OwnViews == "" {
		return nil
	}
	err = d.mountOwn(cfg, tree, large, shared.dir)
	if err != nil && cfg.OwnSpare {
		slog.Warn("there are no own views: every reader asks the daemon", "err", err)
		return nil
	}
	return err
}

// mount claims dir and mounts fs on it.
func (d *Daemon) mount(cfg Config, dir string, fs conn.Handler) (*mountpoint, error) {
	dir, err := mountDir(dir)
	if err != nil {
		return nil, err
	}
	claim, err := newClaim(cfg.StateDir, dir)
	if err != nil {
		return nil, err
	}
	d.claims = append(d.claims, claim)
	if err := clearDead(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	m, err := mount(dir, fs, &d.Stats, cfg.Debug)
	if err != nil {
		return nil, err
	}
	d.mounts = append(d.mounts, m)
	return m, nil
}

// stateFile gives the path of what is to be known of the mount on dir by the next daemon there.
func stateFile(cfg Config, dir, what string) string {
	return filepath.Join(cfg.StateDir, url.PathEscape(dir)+"."+what)
}

// mountOwn mounts the containers' own views. shared is where the other mount is.
func (d *Daemon) mountOwn(cfg Config, tree *tree, large largeFiles, shared string) error {
	o := &own{tree: tree, render: d.render, shared: shared, direct: large}
	m, err := d.mount(cfg, cfg.OwnViews, o)
	if err != nil {
		return err
	}
	if d.table, err = newTable(stateFile(cfg, m.dir, "table")); err != nil {
		return err
	}
	o.records, o.notify, d.own = newRecords(d.table), m.conn, o
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

// mountDir gives the directory as /proc/self/mountinfo will name it. Its last part is not looked at: a dead or hung mount may be on it.
func mountDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return "", err
	}
	up, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(up, filepath.Base(abs)), nil
}

// sweepEvery is how soon an ended container is forgotten.
const sweepEvery = 5 * time.Second

func (d *Daemon) sweepNowAndThen() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			d.render.sweep(func(v *view) {
				if d.own != nil {
					d.own.ended(v)
				}
			})
		}
	}
}

// ToggleHost has every container shown the host's own values from now on, or its own again, and says which.
func (d *Daemon) ToggleHost() (host bool) {
	u := &d.render.unveiled
	for {
		if was := u.Load(); u.CompareAndSwap(was, !was) {
			return !was
		}
	}
}

// String says what the daemon found, for the log.
func (d *Daemon) String() string { return d.render.resolver.String() }

// Ended is closed when the kernel has ended the connection: somebody unmounted the tree and the last container that used it has gone, or it was aborted.
func (d *Daemon) Ended() <-chan struct{} { return d.mounts[0].served }

// Close unmounts and gives the directories free.
func (d *Daemon) Close() error {
	close(d.stop)
	d.stopped.Wait()
	return d.release()
}

func (d *Daemon) release() error {
	var errs []error
	for _, m := range d.mounts {
		errs = append(errs, m.unmount())
	}
	if d.render.keep != nil {
		errs = append(errs, d.render.keep.close())
	}
	if d.table != nil {
		errs = append(errs, d.table.discard())
	}
	for _, c := range d.claims {
		errs = append(errs, c.release())
	}
	return errors.Join(errs...)
}
