package pack

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"hash/crc32"
	"io"
	"sync"
)

// archive writes the zip. Every file's length and sum are in the header before it,
// so that there are no data descriptors, about which readers differ; see layout.
type archive struct{ z *zip.Writer }

func (a archive) raw(name string, method uint16, sum uint32, unpacked int64, packed io.Reader, n int64) error {
	w, err := a.z.CreateRaw(&zip.FileHeader{Name: name, Method: method, CRC32: sum,
		UncompressedSize64: uint64(unpacked), CompressedSize64: uint64(n)})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, packed)
	return err
}

// stored adds a file that does not get smaller.
func (a archive) stored(name string, data []byte) error {
	return a.raw(name, zip.Store, crc32.ChecksumIEEE(data), int64(len(data)), bytes.NewReader(data), int64(len(data)))
}

// packed adds a file that was compressed before.
func (a archive) packed(name string, c compressed) error {
	return a.raw(name, zip.Deflate, c.sum, c.n, bytes.NewReader(c.data), int64(len(c.data)))
}

func (a archive) spooled(name string, o *spooled) error {
	return a.raw(name, zip.Deflate, o.sum.Sum32(), int64(o.n), io.NewSectionReader(o.packed, 0, o.length), o.length)
}

// compressed is a file ready for the archive.
type compressed struct {
	data []byte
	n    int64
	sum  uint32
}

// deflater compresses many small files, with as many compressors as work at once.
type deflater struct{ pool sync.Pool }

func (d *deflater) compress(data []byte) (compressed, error) {
	var b bytes.Buffer
	z, _ := d.pool.Get().(*flate.Writer)
	if z == nil {
		var err error
		if z, err = flate.NewWriter(&b, flate.BestSpeed); err != nil {
			return compressed{}, err
		}
	}
	defer d.pool.Put(z)
	z.Reset(&b)
	if _, err := z.Write(data); err != nil {
		return compressed{}, err
	}
	err := z.Close()
	return compressed{b.Bytes(), int64(len(data)), crc32.ChecksumIEEE(data)}, err
}
