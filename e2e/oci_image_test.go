package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

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

func digestOf(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }
