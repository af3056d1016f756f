package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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

// newContainerd configures one; cri are further lines for what speaks to the kubelet.
func newContainerd(t *testing.T, cri ...string) *containerd {
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
  %[3]s
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "%[1]s/cni"
`, k.dir, criImage, strings.Join(cri, "\n  "))
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

func (p *criPod) container(name string, devices ...string) *criContainer {
	k := p.k
	k.t.Helper()
	c := &criContainer{k: k, name: name, memory: 200 << 10}
	ctx, cancel := criContext()
	defer cancel()
	client := cri.NewRuntimeServiceClient(k.conn)
	var cdi []*cri.CDIDevice
	for _, d := range devices {
		cdi = append(cdi, &cri.CDIDevice{Name: d})
	}
	made, err := client.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  p.id,
		SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata:   &cri.ContainerMetadata{Name: name},
			Image:      &cri.ImageSpec{Image: criImage},
			Command:    []string{"/bin/busybox", "sh", "-c", "busybox cat /proc/meminfo; exec busybox sleep 100000"},
			LogPath:    name,
			CDIDevices: cdi,
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
