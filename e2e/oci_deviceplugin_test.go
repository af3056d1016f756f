package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lensfs/oci/deviceplugin/kubelettest"

	"github.com/containerd/cgroups/v3"
	kubelet "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// devicePlugin is the program lensfs-device-plugin.
var devicePlugin = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LENSFS_DEVICE_PLUGIN"); path != "" {
		return path, nil
	}
	path := filepath.Join(runDir, "lensfs-device-plugin")
	out, err := exec.Command("go", "build", "-o", path, "lensfs/cmd/lensfs-device-plugin").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, err
})

// needDevicePlugin gives its path.
func needDevicePlugin(t *testing.T) string {
	t.Helper()
	path, err := devicePlugin()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCDIInContainerd has containerd make containers as a kubelet does that has a device plugin: with the CDI devices that the plugin answered with.
// The plugin is the real one, the kubelet is the test.
func TestCDIInContainerd(t *testing.T) {
	needRoot(t)
	if cgroups.Mode() != cgroups.Unified {
		t.Skip("Debian 12's containerd has no CDI: in the virtual machine")
	}
	needCommand(t, "containerd", "ctr", "busybox", "runc")
	program := needDevicePlugin(t)
	d := serve(t)
	dir, specs := tempDir(t), tempDir(t)
	k := newContainerd(t, "enable_cdi = true", fmt.Sprintf("cdi_spec_dirs = [%q]", specs))

	node, err := kubelettest.Start(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Stop)
	log := newLogFile(t)
	cmd := exec.Command(program, "--plugin-dir", dir, "--views", d.views, "--cdi", filepath.Join(specs, "lensfs.json"), "--program", binary, "--count", "100")
	cmd.Stderr = log.file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	endWithTest(t, cmd)
	var plugin *kubelettest.Plugin
	select {
	case plugin = <-node.Plugins():
	case <-time.After(time.Minute):
		t.Fatalf("it does not register\n%s", log)
	}
	devices := devicesOf(t, plugin, 100, kubelet.Healthy)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := plugin.Allocate(ctx, devices[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, device := range answer.CdiDevices {
		names = append(names, device.Name)
	}

	k.start()
	k.importImage()
	pod := k.pod("cdi", map[string]string{"cdi.k8s.io/lensfs": viewAll}) // which a kubelet tells the runtime of the pod, not of its containers
	plain := pod.container("plain")
	if got := plain.sees(); got.views != 0 || got.total == plain.memory {
		t.Errorf("without a device it sees %+v", got)
	}
	given := pod.container("given", names...)
	given.check(given.sees(), 10)
	if got := given.own(); got != 1 {
		t.Errorf("its /proc/meminfo is an own view %d times: %s", got, given.exec("cat", "/proc/self/mountinfo"))
	}

	// Nobody serves: the kubelet hears of it, and gives out no more.
	d.kill()
	devicesOf(t, plugin, 100, kubelet.Unhealthy)
}

// devicesOf waits until a plugin tells of so many devices, all in this health.
func devicesOf(t *testing.T, p *kubelettest.Plugin, n int, health string) []*kubelet.Device {
	t.Helper()
	select {
	case list, ok := <-p.Lists():
		if !ok || len(list) != n || list[0].Health != health || list[n-1].Health != health {
			t.Fatalf("it tells of %d devices: %v", len(list), list)
		}
		return list
	case <-time.After(time.Minute):
		t.Fatalf("it does not tell that its devices are %s", health)
		return nil
	}
}
