package deviceplugin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lensfs/oci"
	"lensfs/oci/deviceplugin/kubelettest"

	kubelet "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// limit is for failing only.
const limit = time.Minute

// plugin is one that runs.
type plugin struct {
	t       *testing.T
	dir     string
	serving atomic.Bool
	log     safeBuffer
	cancel  context.CancelFunc
	ended   chan error
}

type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func run(t *testing.T, dir string) *plugin {
	t.Helper()
	p := &plugin{t: t, dir: dir, ended: make(chan error, 1)}
	p.serving.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	c := Config{Dir: dir, Count: 3, Device: oci.DeviceAll, Serving: p.serving.Load, Log: slog.New(slog.NewTextHandler(&p.log, nil))}
	go func() { p.ended <- Run(ctx, c) }()
	t.Cleanup(cancel)
	return p
}

// end has the plugin end, and tells with what.
func (p *plugin) end() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(limit):
		p.t.Fatalf("it does not end\n%s", &p.log)
		return nil
	}
}

func startKubelet(t *testing.T, dir string, refuse error) *kubelettest.Kubelet {
	t.Helper()
	k, err := kubelettest.Start(dir, refuse)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Stop)
	return k
}

func next[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatalf("%s: the connection has ended", what)
		}
		return v
	case <-time.After(limit):
		t.Fatalf("%s: nothing comes", what)
		panic("unreachable")
	}
}

// checkList waits for the list of devices, three different ones, all in this health.
func checkList(t *testing.T, p *kubelettest.Plugin, health string) (ids []string) {
	t.Helper()
	for _, d := range next(t, "a list of devices", p.Lists()) {
		if d.Health != health || slices.Contains(ids, d.ID) || d.ID == "" {
			t.Errorf("device %v, not %s and another than %v", d, health, ids)
		}
		ids = append(ids, d.ID)
	}
	if len(ids) != 3 {
		t.Errorf("%d devices, not 3", len(ids))
	}
	return ids
}

func checkAllocate(t *testing.T, p *kubelettest.Plugin, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r, err := p.Allocate(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.CdiDevices) != 1 || r.CdiDevices[0].Name != "lensfs.dev/view=all" || len(r.Envs)+len(r.Mounts)+len(r.Devices)+len(r.Annotations) != 0 {
		t.Errorf("a container that has %v gets %v", ids, r)
	}
}

func TestAKubeletIsServed(t *testing.T) {
	dir := t.TempDir()
	k := startKubelet(t, dir, nil)
	p := run(t, dir)
	r := next(t, "a registration", k.Plugins())
	if q := r.Request; q.Version != "v1beta1" || q.ResourceName != "lensfs.dev/view" || q.Endpoint != Socket {
		t.Errorf("it registers %v", q)
	}
	if o := r.Options; o.PreStartRequired || o.GetPreferredAllocationAvailable {
		t.Errorf("it wants to be asked more: %v", o)
	}
	ids := checkList(t, r, kubelet.Healthy)
	checkAllocate(t, r, ids[0])
	checkAllocate(t, r, ids[1], ids[2])

	// The daemon goes: nothing more is given. What was given already is still answered for. It comes back.
	p.serving.Store(false)
	checkList(t, r, kubelet.Unhealthy)
	checkAllocate(t, r, ids[0])
	p.serving.Store(true)
	checkList(t, r, kubelet.Healthy)
	select {
	case l := <-r.Lists():
		t.Errorf("nothing has changed, and it says %v", l)
	case <-time.After(2 * looked):
	}

	p.cancel()
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, Socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket: %v", err)
	}
}

func TestEveryContainerIsAnswered(t *testing.T) {
	a := &answers{Config: Config{Device: oci.DeviceFull}}
	r, err := a.Allocate(context.Background(), &kubelet.AllocateRequest{ContainerRequests: []*kubelet.ContainerAllocateRequest{{}, {}}})
	if err != nil || len(r.ContainerResponses) != 2 || r.ContainerResponses[1].CdiDevices[0].Name != "lensfs.dev/view=full" {
		t.Errorf("%v, %v", r, err)
	}
}

// The daemon does not answer when the plugin starts.
func TestUnhealthyAtFirst(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir)
	p.serving.Store(false)
	k := startKubelet(t, dir, nil) // after the plugin, which waits for it
	checkList(t, next(t, "a registration", k.Plugins()), kubelet.Unhealthy)
	if n := strings.Count(p.log.String(), "level=WARN"); n > 1 {
		t.Errorf("no kubelet for a moment: it warned %d times\n%s", n, &p.log)
	}
}

// A kubelet that is started anew has removed the plugin's socket, and knows of none. One that was killed has left its own.
func TestKubeletIsRestarted(t *testing.T) {
	dir := t.TempDir()
	k := startKubelet(t, dir, nil)
	run(t, dir)
	checkList(t, next(t, "a registration", k.Plugins()), kubelet.Healthy)
	for range 2 {
		k.Stop()
		if err := os.WriteFile(filepath.Join(dir, "kubelet.sock"), nil, 0o600); err != nil { // nobody listens there
			t.Fatal(err)
		}
		time.Sleep(2 * retry)
		k = startKubelet(t, dir, nil)
		r := next(t, "another registration", k.Plugins())
		checkAllocate(t, r, checkList(t, r, kubelet.Healthy)[0])
	}
}

// The kubelet that is there cannot reach it any more.
func TestOurSocketIsRemoved(t *testing.T) {
	dir := t.TempDir()
	k := startKubelet(t, dir, nil)
	run(t, dir)
	checkList(t, next(t, "a registration", k.Plugins()), kubelet.Healthy)
	if err := os.Remove(filepath.Join(dir, Socket)); err != nil {
		t.Fatal(err)
	}
	r := next(t, "another registration", k.Plugins())
	checkAllocate(t, r, checkList(t, r, kubelet.Healthy)[0])
}

func TestRefusedByTheKubelet(t *testing.T) {
	dir := t.TempDir()
	k := startKubelet(t, dir, errors.New("no plugins today"))
	p := run(t, dir)
	for deadline := time.Now().Add(limit); !strings.Contains(p.log.String(), "no plugins today"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log has %s", &p.log)
		}
	}
	time.Sleep(2 * retry)
	if n := strings.Count(p.log.String(), "no plugins today"); n != 1 {
		t.Errorf("it says so %d times\n%s", n, &p.log)
	}
	k.Stop()
	k = startKubelet(t, dir, nil)
	checkList(t, next(t, "a registration", k.Plugins()), kubelet.Healthy)
}

// Of two plugins on one node the later one stays, and its socket too.
func TestAnotherPlugin(t *testing.T) {
	dir := t.TempDir()
	k := startKubelet(t, dir, nil)
	first := run(t, dir)
	checkList(t, next(t, "a registration", k.Plugins()), kubelet.Healthy)
	second := run(t, dir)
	r := next(t, "the other's registration", k.Plugins())
	ids := checkList(t, r, kubelet.Healthy)
	if err := first.end(); !errors.Is(err, errReplaced) {
		t.Errorf("the first ends with %v", err)
	}
	checkAllocate(t, r, ids[0])
	if _, err := os.Lstat(filepath.Join(dir, Socket)); err != nil {
		t.Errorf("the second's socket: %v", err)
	}
	select {
	case err := <-second.ended:
		t.Errorf("the second has ended too: %v", err)
	default:
	}
}

func TestNoDirectory(t *testing.T) {
	p := run(t, filepath.Join(t.TempDir(), "none"))
	for deadline := time.Now().Add(limit); !strings.Contains(p.log.String(), "kubelet.sock: no such file"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log has %s", &p.log)
		}
	}
	p.cancel()
	if err := p.end(); err != nil {
		t.Error(err)
	}
}
