package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestNRI has containerd make containers as Kubernetes does, by the CRI, with "lensfs nri" beside it. Debian 13's containerd (1.7) asks plugins about
// no others: those of ctr it makes without.
func TestNRI(t *testing.T) {
	needRoot(t)
	if cgroups.Mode() != cgroups.Unified {
		return // Debian 12's containerd has no NRI: in the virtual machine
	}
	needCommand(t, "containerd", "ctr", "busybox", "runc")
	d := serve(t)
	k := newContainerd(t)
	k.start()
	k.importImage()
	pod := k.pod("plain", nil)
	plain := pod.container("before")
	if got := plain.sees(); got.views != 0 {
		t.Errorf("without the plugin: %+v", got)
	}

	log := k.plugin(d)
	poll(t, time.Minute, "the plugin has heard of the container that runs", func() bool {
		return strings.Contains(log.String(), "runs without views") && strings.Contains(log.String(), "connected")
	})
	first := pod.container("first")
	first.check(first.sees(), 10)
	if got := first.own(); got != 1 {
		t.Errorf("its /proc/meminfo is an own view %d times: %s", got, first.exec("cat", "/proc/self/mountinfo"))
	}
	annotated := k.pod("annotated", map[string]string{"views.lensfs.dev": "off", "views.lensfs.dev/container.other": "on"})
	off := annotated.container("off")
	if got := off.sees(); got.views != 0 || got.total == first.memory {
		t.Errorf("annotated off: %+v", got)
	}
	other := annotated.container("other")
	other.check(other.sees(), 10)

	// The runtime is restarted: the plugin is there for the next container.
	k.stop()
	k.start()
	poll(t, time.Minute, "the plugin is connected again", func() bool { return strings.Count(log.String(), "INFO connected") == 2 })
	if !strings.Contains(log.String(), `"with views"=2`) {
		t.Errorf("it has not learned of those that have views:\n%s", log)
	}
	again := pod.container("again")
	again.check(again.sees(), 10)
	first.check(first.sees(), 10)

	// The plugin is killed, then there is one with a hook, then nobody serves.
	k.killPlugin()
	without := pod.container("without")
	if got := without.sees(); got.views != 0 {
		t.Errorf("the plugin is dead: %+v", got)
	}
	log = k.plugin(d, "--hook", binary)
	poll(t, time.Minute, "the plugin is connected", func() bool { return strings.Contains(log.String(), "INFO connected") })
	hooked := pod.container("hooked")
	hooked.check(hooked.sees(), 14)
	k.killPlugin()

	log = k.plugin(d)
	poll(t, time.Minute, "the plugin is connected", func() bool { return strings.Contains(log.String(), "INFO connected") })
	d.kill()
	time.Sleep(4 * time.Second) // after three it is taken for gone
	last := pod.container("last")
	if got := last.sees(); got.views != 0 || !strings.Contains(log.String(), "no daemon answers") {
		t.Errorf("nobody serves: %+v\n%s", got, log)
	}
}

func TestNRISaysWhatIsWrong(t *testing.T) {
	for _, bad := range []struct{ flag, value, says string }{
		{"--default", "maybe", "on or off"}, {"--index", "7", "two digits"}, {"--views", "run", "absolute paths"}, {"--hook", "lensfs", "absolute paths"},
	} {
		if _, err := tryCommand(binary, "nri", bad.flag, bad.value); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s %s: %v", bad.flag, bad.value, err)
		}
	}
}

// containerd is a runtime of the test's own.
type containerd struct {
	t    *testing.T
	dir  string
	log  *logFile
	cmd  *exec.Cmd
	conn *grpc.ClientConn
	nri  *exec.Cmd
}

const criImage = "docker.io/lensfs/test:1"

func newContainerd(t *testing.T) *containerd {
	t.Helper()
	k := &containerd{t: t, dir: tempDir(t), log: newLogFile(t)}
	config := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
oom_score = 0
[grpc]
  address = "%[1]s/c.sock"
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  disable_connections = false
  plugin_path = "%[1]s/nri-plugins"
  plugin_config_path = "%[1]s/nri-conf"
  socket_path = "%[1]s/nri.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[2]q
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "%[1]s/cni"
`, k.dir, criImage)
	if err := os.WriteFile(filepath.Join(k.dir, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+k.dir+"/c.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	k.conn = conn
	t.Cleanup(func() {
		conn.Close()
		k.killPlugin()
		k.stop()
		if err := os.Remove("/sys/fs/cgroup" + podsGroup()); err != nil { // the runtimes leave it, it is the kubelet's
			t.Error(err)
		}
	})
	return k
}

func (k *containerd) start() {
	k.t.Helper()
	k.cmd = exec.Command("containerd", "--config", filepath.Join(k.dir, "config.toml"))
	k.cmd.Stdout, k.cmd.Stderr = k.log.file, k.log.file
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	client := cri.NewRuntimeServiceClient(k.conn)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := client.Version(ctx, &cri.VersionRequest{})
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("containerd does not answer: %v\n%s", err, k.log)
		}
	}
}

// stop ends containerd; its containers go on.
func (k *containerd) stop() {
	if k.cmd == nil {
		return
	}
	k.cmd.Process.Signal(unix.SIGTERM)
	kill := time.AfterFunc(time.Minute, func() { k.cmd.Process.Kill() })
	k.cmd.Wait()
	kill.Stop()
	k.cmd = nil
}

func (k *containerd) plugin(d *daemon, flags ...string) *logFile {
	k.t.Helper()
	log := newLogFile(k.t)
	k.nri = exec.Command(binary, append([]string{"nri", "--socket", k.dir + "/nri.sock", "--views", d.views}, flags...)...)
	k.nri.Stderr = log.file
	if err := k.nri.Start(); err != nil {
		k.t.Fatal(err)
	}
	return log
}

func (k *containerd) killPlugin() {
	if k.nri != nil {
		k.nri.Process.Kill()
		k.nri.Wait()
		k.nri = nil
	}
}

// importImage makes an image with nothing but busybox in it, as "docker save" would write it.
func (k *containerd) importImage() {
	k.t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		k.t.Fatal(err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	layer := tarOf(k.t, []tarFile{{"bin/busybox", 0o755, busybox}})
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/bin/busybox", "sleep", "100000"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	if err != nil {
		k.t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{criImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		k.t.Fatal(err)
	}
	image := filepath.Join(k.dir, "image.tar")
	if err := os.WriteFile(image, tarOf(k.t, []tarFile{{"manifest.json", 0o644, manifest}, {"config.json", 0o644, config}, {"layer.tar", 0o644, layer}}), 0o644); err != nil {
		k.t.Fatal(err)
	}
	command(k.t, "ctr", "--address", k.dir+"/c.sock", "--namespace", "k8s.io", "images", "import", image)
}

type tarFile struct {
	name string
	mode int64
	text []byte
}

func tarOf(t *testing.T, files []tarFile) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// criPod is where containers are made.
type criPod struct {
	k      *containerd
	config *cri.PodSandboxConfig
	id     string
	made   []string
}

// podsGroup is the cgroup that all pods of this run are in.
func podsGroup() string { return "/" + runName() + "-pods" }

func criContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Minute)
}

func (k *containerd) pod(name string, annotations map[string]string) *criPod {
	k.t.Helper()
	ctx, cancel := criContext()
	defer cancel()
	p := &criPod{k: k, config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: uniqueName(), Namespace: "test"},
		LogDirectory: filepath.Join(k.dir, "logs"),
		Annotations:  annotations,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    podsGroup(),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: criNamespaces()},
		},
	}}
	pod, err := cri.NewRuntimeServiceClient(k.conn).RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		k.t.Fatalf("pod %s: %v\n%s", name, err, k.log)
	}
	p.id = pod.PodSandboxId
	k.t.Cleanup(p.remove)
	return p
}

// criNamespaces leaves out the network, for which there would have to be a plugin.
func criNamespaces() *cri.NamespaceOption {
	return &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
}

func (p *criPod) remove() {
	ctx, cancel := criContext()
	defer cancel()
	client := cri.NewRuntimeServiceClient(p.k.conn)
	for _, id := range p.made {
		if _, err := client.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id}); err != nil { // at once, with SIGKILL
			p.k.t.Errorf("stop %s: %v", id, err)
		}
	}
	if _, err := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.k.t.Error(err)
	}
	if _, err := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.k.t.Error(err)
	}
}

// criContainer has half a CPU and a memory limit of its own.
type criContainer struct {
	k      *containerd
	name   string
	memory uint64 // kB
	id     string
}

func (p *criPod) container(name string) *criContainer {
	k := p.k
	k.t.Helper()
	c := &criContainer{k: k, name: name, memory: 200 << 10}
	ctx, cancel := criContext()
	defer cancel()
	client := cri.NewRuntimeServiceClient(k.conn)
	made, err := client.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  p.id,
		SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name},
			Image:    &cri.ImageSpec{Image: criImage},
			Command:  []string{"/bin/busybox", "sh", "-c", "busybox cat /proc/meminfo; exec busybox sleep 100000"},
			LogPath:  name,
			Linux: &cri.LinuxContainerConfig{
				Resources:       &cri.LinuxContainerResources{MemoryLimitInBytes: int64(c.memory) << 10, CpuQuota: 50_000, CpuPeriod: 100_000},
				SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: criNamespaces()},
			},
		},
	})
	if err != nil {
		k.t.Fatalf("container %s: %v\n%s", name, err, k.log)
	}
	c.id = made.ContainerId
	if _, err := client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
		k.t.Fatalf("container %s: %v\n%s", name, err, k.log)
	}
	p.made = append(p.made, c.id)
	poll(k.t, time.Minute, "its first command has written", func() bool {
		text, _ := os.ReadFile(c.log())
		return bytes.Contains(text, []byte("MemTotal:"))
	})
	return c
}

// log has what its first command wrote.
func (c *criContainer) log() string { return filepath.Join(c.k.dir, "logs", c.name) }

func (c *criContainer) exec(cmd ...string) string {
	c.k.t.Helper()
	ctx, cancel := criContext()
	defer cancel()
	out, err := cri.NewRuntimeServiceClient(c.k.conn).ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: append([]string{"/bin/busybox"}, cmd...), Timeout: 30})
	if err != nil || out.ExitCode != 0 {
		c.k.t.Fatalf("%s: %v: %v, %s", c.name, cmd, err, out.GetStderr())
	}
	return string(out.Stdout)
}

// criSight is what a container sees.
type criSight struct {
	total uint64 // kB, of the first command
	cpus  string
	views int // mounts of them
}

func (c *criContainer) sees() criSight {
	c.k.t.Helper()
	log, err := os.ReadFile(c.log())
	if err != nil {
		c.k.t.Fatal(err)
	}
	var s criSight
	for line := range strings.Lines(string(log)) { // TIME stdout F MemTotal: N kB
		if _, rest, ok := strings.Cut(line, "MemTotal:"); ok {
			s.total, _ = strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		}
	}
	s.cpus = strings.TrimSpace(c.exec("cat", "/sys/devices/system/cpu/online"))
	s.views = strings.Count(c.exec("cat", "/proc/mounts"), " fuse.lxcfs ")
	return s
}

func (c *criContainer) check(got criSight, atLeast int) {
	c.k.t.Helper()
	if got.total != c.memory || got.cpus != strconv.Itoa(hostCPUs(c.k.t)[0]) || got.views < atLeast {
		c.k.t.Errorf("%s, with %d kB and half a CPU, sees %+v", c.name, c.memory, got)
	}
}

// own counts the mounts of an own view's meminfo.
func (c *criContainer) own() int {
	c.k.t.Helper()
	return len(slices.DeleteFunc(strings.Split(c.exec("cat", "/proc/self/mountinfo"), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) < 5 || !strings.HasPrefix(f[3], "/ct/") || f[4] != "/proc/meminfo"
	}))
}

func digestOf(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }
