package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// packaged gives the one package that matches a pattern, as "make packages" made it; in the virtual machine, as test.sh did.
func packaged(t *testing.T, pattern string) string {
	t.Helper()
	dir := os.Getenv("LENSFS_PACKAGES")
	if dir == "" {
		dir = "../out/packages"
	}
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		skip(t, fmt.Sprintf("needs one %s in %s, there are %d: make packages", pattern, dir, len(found)))
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// nativePackages leaves the virtual machine what only it can show.
func nativePackages(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("looked at where they are made")
	}
	needRoot(t)
}

// What is in both packages, and the mode of each.
var packageFiles = map[string]string{
	"/usr/bin/lensfs":                                   "-rwxr-xr-x",
	"/usr/bin/lxcfs":                                    "-> lensfs",
	"/usr/lib/systemd/system/lensfs.service":            "-rw-r--r--",
	"/usr/lib/systemd/system/lxcfs.service":             "-rw-r--r--",
	"/usr/share/lensfs/lxcfs.service":                   "-rw-r--r--",
	"/etc/sv/lensfs/run":                                "-rwxr-xr-x",
	"/etc/sv/lensfs/log/run":                            "-rwxr-xr-x",
	"/usr/share/lensfs/lxc.mount.hook":                  "-rwxr-xr-x",
	"/usr/share/lxcfs/lxc.mount.hook":                   "-> ../lensfs/lxc.mount.hook",
	"/usr/share/lxcfs/lxc.reboot.hook":                  "-rwxr-xr-x",
	"/usr/share/lxc/config/common.conf.d/00-lxcfs.conf": "-rw-r--r--",
	"/usr/share/bash-completion/completions/lensfs":     "-rw-r--r--",
	"/usr/share/fish/vendor_completions.d/lensfs.fish":  "-rw-r--r--",
	"/usr/share/man/man8/lensfs.8.gz":                   "-rw-r--r--",
	"/usr/share/man/man8/lensfs-serve.8.gz":             "-rw-r--r--",
	"/usr/share/man/man8/lxcfs.8.gz":                    "-rw-r--r--",
	"/usr/share/doc/lensfs/changelog.gz":                "-rw-r--r--",
	"/usr/share/doc/lensfs/operations.md":               "-rw-r--r--",
}

// listed are the files in a listing, of which each line begins with the mode and ends with the path.
func listed(listing string) map[string]string {
	files := map[string]string{}
	for line := range strings.Lines(listing) {
		line, to, isLink := strings.Cut(strings.TrimSpace(line), " -> ")
		f := strings.Fields(line)
		mode := f[0]
		if isLink {
			mode = "-> " + to
		}
		files[strings.TrimSuffix(strings.TrimPrefix(f[len(f)-1], "."), "/")] = mode
	}
	return files
}

func checkListed(t *testing.T, files map[string]string, zsh string) {
	t.Helper()
	want := map[string]string{zsh: "-rw-r--r--"}
	for path, mode := range packageFiles {
		want[path] = mode
	}
	for path, mode := range want {
		if files[path] != mode {
			t.Errorf("%s: %q, not %q", path, files[path], mode)
		}
	}
	for path := range files {
		if strings.HasPrefix(path, "/var/lib") || strings.HasPrefix(path, "/run") {
			t.Errorf("%s is in the package: a file system may be mounted there", path)
		}
	}
}

func TestPackageForDebian(t *testing.T) {
	nativePackages(t)
	deb := packaged(t, "*.deb")
	checkListed(t, listed(command(t, "dpkg-deb", "-c", deb)), "/usr/share/zsh/vendor-completions/_lensfs")
	for field, want := range map[string]string{"Package": "lensfs", "Provides": "lxcfs (= 7.0.0)", "Conflicts": "lxcfs", "Replaces": "lxcfs", "Section": "admin"} {
		if got := strings.TrimSpace(command(t, "dpkg-deb", "-f", deb, field)); got != want {
			t.Errorf("%s is %q, not %q", field, got, want)
		}
	}
	dir := tempDir(t)
	command(t, "dpkg-deb", "-R", deb, dir)
	conffiles, err := os.ReadFile(filepath.Join(dir, "DEBIAN/conffiles"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Fields(string(conffiles)), []string{"/etc/sv/lensfs/log/run", "/etc/sv/lensfs/run"}; !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("the files that stay an operator's are %q, not %q", got, want)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		command(t, "sh", "-n", filepath.Join(dir, "DEBIAN", script))
	}
	if out := command(t, filepath.Join(dir, "usr/bin/lxcfs"), "--version"); !strings.Contains(out, "lensfs") {
		t.Errorf("lxcfs --version says %q", out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "usr/share/man/man8/*.gz"))
	if err != nil || len(pages) < 5 {
		t.Errorf("%d manual pages, %v", len(pages), err)
	}
	needCommand(t, "groff")
	for _, page := range pages {
		out, err := exec.Command("sh", "-c", `zcat "$0" | groff -k -man -Tutf8 -ww 2>&1 >/dev/null`, page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", filepath.Base(page), err, out)
		}
	}
}

func TestPackageForRPM(t *testing.T) {
	nativePackages(t)
	rpm := packaged(t, "*.rpm")
	needCommand(t, "rpm")
	checkListed(t, listed(command(t, "rpm", "-qplv", "--nosignature", rpm)), "/usr/share/zsh/site-functions/_lensfs")
	for query, want := range map[string]string{"--provides": "lxcfs = 7.0.0", "--obsoletes": "lxcfs", "--conflicts": "lxcfs", "--configfiles": "/etc/sv/lensfs/run"} {
		if out := command(t, "rpm", "-qp", "--nosignature", query, rpm); !slices.Contains(strings.Split(strings.TrimSpace(out), "\n"), want) {
			t.Errorf("rpm %s: %q is not in %q", query, want, out)
		}
	}
	scripts := command(t, "rpm", "-qp", "--nosignature", "--scripts", rpm)
	for _, want := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("no %s in %q", want, scripts)
		}
	}
	root := debianOverlay(t) // its scripts want no more than a shell
	command(t, "rpm", "--root", root, "--nodeps", "--nosignature", "-i", rpm)
	if out := command(t, "chroot", root, "lxcfs", "--version"); !strings.Contains(out, "lensfs") {
		t.Errorf("lxcfs --version says %q", out)
	}
	command(t, "rpm", "--root", root, "--nodeps", "--nosignature", "-U", "--force", rpm)
	command(t, "rpm", "--root", root, "-e", "lensfs")
	checkGone(t, root)
}

// Where no systemd runs, as in a chroot, the package changes files and nothing else. It takes the place of an lxcfs that has its unit in /lib, as
// that of Debian 12 has: for dpkg, which knows nothing of what a directory also is called, that is another file than ours.
func TestPackageWithoutSystemd(t *testing.T) {
	nativePackages(t)
	deb := packaged(t, "*.deb")
	root := debianOverlay(t)
	dir := tempDir(t)
	for _, d := range []string{"lxcfs/DEBIAN", "lxcfs/lib/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "lxcfs/DEBIAN/control"), "Package: lxcfs\nVersion: 5.0.3\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: stands for LXCFS\n")
	writeFile(t, filepath.Join(dir, "lxcfs/lib/systemd/system/lxcfs.service"), "[Service]\nExecStart=/usr/bin/lxcfs /var/lib/lxcfs\n")
	command(t, "dpkg-deb", "-b", filepath.Join(dir, "lxcfs"), filepath.Join(root, "lxcfs.deb"))
	copyFile(t, deb, filepath.Join(root, "lensfs.deb"))

	units := map[string]string{"lensfs.service": "Type=notify", "lxcfs.service": "Wants=lensfs.service"}
	dpkg := func(args ...string) {
		t.Helper()
		command(t, "chroot", append([]string{root, "dpkg"}, args...)...)
	}
	dpkg("-i", "/lxcfs.deb")
	dpkg("-i", "/lensfs.deb")
	for unit, want := range units {
		text, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system", unit))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s has no %s: %v\n%s", unit, want, err, text)
		}
	}
	if _, err := tryCommand("chroot", root, "dpkg-query", "-s", "lxcfs"); err == nil {
		t.Error("lxcfs is still there")
	}
	dpkg("-i", "/lensfs.deb") // once more, as an upgrade
	dpkg("-P", "lensfs")
	checkGone(t, root)
}

// debianOverlay gives a Debian, without systemd as its init, that packages may be installed in.
func debianOverlay(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	root := filepath.Join(dir, "root")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("lensfs-package", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%[2]s/upper,workdir=%[2]s/work", debian(t), dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return root
}

// checkGone looks for what a removed package has left.
func checkGone(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"etc", "usr"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ os.DirEntry, err error) error {
			if strings.Contains(filepath.Base(path), "lensfs") {
				t.Errorf("left of the package: %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
