package guestmem

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lzopPages are the pages of lzopSamples.
func lzopPages() []byte {
	var b []byte
	for i := 0; len(b) < PageSize; i++ {
		b = fmt.Appendf(b, "page %d ", i*i)
	}
	for x := uint32(1); len(b) < 5000; {
		x = x*1103515245 + 12345
		b = append(b, byte(x>>16))
	}
	b = append(b, b[:2000]...)
	return append(b, make([]byte, 2*PageSize-len(b))...)
}

// lzopSamples were made by lzop 1.04: -1, and -9 --crc32.
func lzopSamples(t testing.TB) (samples [][]byte) {
	t.Helper()
	for _, text := range []string{lzopFast, lzopBest} {
		b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, b)
	}
	return samples
}

func TestLzop(t *testing.T) {
	for _, data := range lzopSamples(t) {
		s, _ := bothWays(t, data, lzopPages())
		if s.Saw != "compressed by lzop: memory byte for byte" {
			t.Errorf("%q", s.Saw)
		}
		for at := rand.IntN(17); at < len(data); at += 17 { // other bytes in each run
			flipped := bytes.Clone(data)
			flipped[at] ^= 0x10
			s, err := OpenStream("stream", bytes.NewReader(flipped), false)
			if err != nil {
				continue
			}
			var got []byte
			if got, _, err = streamed(s.Stream); err == nil && s.Format == "raw" && at >= len(lzopMagic) {
				t.Errorf("byte %d was changed, and %d bytes came", at, len(got))
			}
			_ = s.Close()
		}
		for _, n := range []int{len(data) - 1, len(data) - 4, len(data) / 2, 40, 20} {
			refusedBothWays(t, fmt.Sprint("cut to ", n), data[:n], "")
		}
	}
}

// TestLzopTool: what lzop makes of any bytes, in every level.
func TestLzopTool(t *testing.T) {
	if _, err := exec.LookPath("lzop"); err != nil {
		t.Skip(err)
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	levels := []string{"-1", "-3", "-7", "-9"}
	for round := range 12 {
		var b []byte
		for size := (1 + r.IntN(200)) * PageSize; len(b) < size; {
			switch n := 1 + r.IntN(5000); r.IntN(4) {
			case 0:
				for range n {
					b = append(b, byte(r.Uint32()))
				}
			case 1:
				b = append(b, make([]byte, n*20)...)
			case 2:
				from := r.IntN(len(b) + 1)
				b = append(b, b[from:min(from+n, len(b))]...)
			default:
				b = append(b, bytes.Repeat([]byte("text"), n/100)...)
			}
		}
		b = b[:len(b)/PageSize*PageSize]
		cmd := exec.Command("lzop", levels[round%len(levels)], "-c")
		cmd.Stdin, cmd.Stderr = bytes.NewReader(b), os.Stderr
		data, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		bothWays(t, data, b)
	}
}

func FuzzLzop(f *testing.F) {
	for _, data := range lzopSamples(f) {
		f.Add(data)
		f.Add(data[50:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := lzo1x(nil, data, 2*PageSize); err == nil && len(out) != 2*PageSize {
			t.Errorf("%d bytes", len(out))
		}
		agree(t, append([]byte(lzopMagic), data...))
		agree(t, data)
	})
}

const (
	lzopFast = `
iUxaTwANChoKEEAgoAlAAgEDAAAJAACBpGsIwcsAAAAAAXQ98QUCAAAgAAAACufFRf3oBHBhZ2UgMCCZADG5ADS5ADm6ADE2vgAy
Nb0AM90BNN0DNtkFONYHMTD1CTLlAjTKBDE2zgYxOdEIMvYKMjXlAjjOBDMy1gYzNt0INOYLNDTlAjjOBDUy1gY1N90INuULNuUC
N+0EN/UGOP0IOeULOe4NMTD6DzEw5hIxMfEUMSfeAjEy6hkxMyd1AzQnwQM1Jw0ENuoMMTYnpQQ37icxOPYpMTn+KzIw5hgyMScO
BjIw3xwyMzDLHzI0MNYhMjXuDDI2J00ANyedADgn7QA5/QkzJ44BMzH+DjMy7hEzM/4TMzTtFjMnHgMzN+4bMzj+HTM57iA0MP0i
NCeuBDQz/ic0NO4qNDb+LDQ37S80JzoGNTDmNDUx8jY1M/44NTTpOzUntgc1NydNADn+BDYw7gc2Mv0JNicyCTY1/g42N+4RNjj+
Ezcw7RY3Jx4DNzPuGzc1/h03N+8gNzky3TE4JyoMODL+Jzg07io4Nv4sODjtLzknPgY5Mu80OTQwzj45Nu45OTj/OzEwMPM+MTAy
KFUANOsFMTA2/wcxMDjyCjExJ6cBMTEy+w8xMTTvEjExNuMVMTE49hcxMidLAzEyM/8cMTI18x8xMjfnIjEyOfokMTMn7wQxMzTj
KjEzNvcsMTM56C8BMTQxNt4nMTQnkAYBMTQ2NCdVADj7OTE1Me88MTUz4T8xKDcIMTU4J1UANiiuADYzJwUBNihdATYn2gkxNygO
Ajc0J2UCNyi+Ajc5JxUDOChuAzg0J8UDOCgeBDkwJ3UEOSjNBDknIg0xOSd/BTIwMfYuMjAnLwYyMDflNDIo3wYyMTP2OTIxJ48H
MjE55j8yMic9CDIpaRAyJ+8IMjMxJ60AMyeXCTIzNyddATQnlwgyNDMnDQI0J+cKMjQ5J70CNSeOCzI1J24DMjUnNwwyNjL+IDI2
J98MMjY47SYyKIcNMjc1/CsBMjc4ON9fMjgy7jEyOCfWDjI4J94GMjknfw8yOTXuPDI5JycQMzAy/kEzMCfPEDMwOSdVADEndxEz
MTbmCDMyJx4SMzInTgozMifHEjMzMeYTMzMnbxMzMzj1GDMoFxQzNDXmHjM0J78UMzUz9iMzNShlFTYnvg0zNikNFjj2LjM3KLYW
NzbmNDM4J98GMzg09jkzOCcHGDM5MuY/MzknrRg0KC4RNDAnVxk0MDjuBTQxJ/wZdHTF7TQopxo0MjTuEDQyJ08bNDMy/hU0Myf2
GzQ0J24DNDQnnxw0NDn+IDQ1J0cdNDU37iY0Nie/DTQ2Nv4rNDcnlx40NzXuMTQ3Jz4fNDgn3gY0OCffHzQ5Mu48NDknfyA1MDH9
QTUolwg1MTAnVQAxKL4hMTnmCDUyJ14iNTInTgo1Myf/IjUzOOcTNTQy91o1NDf2GDU1J28DNTU25h41NiffJDU2NvQjATU3MTLG
ojU3J78NNTgw77U1ODX3LjU5MP+6NTk15jQ2MCeXCDYwNfREZE7fbTYxNeQ/ATYyMDDVDTYoLhE2MyhVADMorgA0MObONjQoXQE1
KLUBNSgNAjYnZAJwOSVKIzY3JxUDNihuAzY4J8YDNjgnHgQ2OSd2BDY5J84ENzAnJgU3MCd+BTcxJ9YFNzEnLgY3MieFBjco3gY3
Myc2BzczJ44HNzQn5gc3NSc9CDcoxhk3NifuCDc2J0YJNzcnngk3Nyf1CTcoTgo3OCemCjc5J/4KODAnVgs4MCetCzgo9ik4MSde
DDgyJ7YMODInDg04MydlDTgovg04NCcWDjg1J24OODUnxg44NiceDzg3J98GODc29kQ4OCcmEDg4J34QODkn1RA5KC4ROTAnhxE5
MTLmSjkxJzQSdLbNiTkoRio5Myc+Ezk0J5YTOTQn7hM5NSdFFDl0ViR6Mjk2J/UUOWw41QI3J6YVOTgn/hU5OSeWCDk5J68WMTAw
JwsXMTAxJ2UXMXiC0GAieDAo3SUzJ3sYMTAzJ9cYMTA0JzMZMTA0J44ZMTAouwgxMDYnRxoxMDYnoxoxMDcn/xoxMDgnWBsiMDIo
3QE5JxMcMTEwJ2wcATExMDjzizExMScnHTExMie5AzFkYc8uMTEzJzseMTE0J5ceMTE0J/AeIugzJ94BMTYnqx8xMTYnByAxMTcn
YyAxMTgnviAxMShbKzExOSd0IWxB44UxMjEnLyIxMjEniCJoXSfeATIzJ0MjMTIzJ58jMTI0J/sjMTI1J1ckMTI2J+sKMTI2Jw8l
MTI3J2slMTI4J8clMTI4JyAmIlg3J94BMzAo2CYiyCTXlDEzMSiQJyLUNP0pMyq5KzMopygzNDYnXgYzNSheKTM2KLkpMykWKjM3
KHIqMzgoziozOSgqKzM5KIUrNCizGjE0MSg+LDQyKL8ANDI4/9UxNDN8CwAAAAB9xn6Ba0v74vtU9r3ffBzhhwG/Md5Wcg9HZ2aH
WaqIPFnqVhN70oWh2DxUVS83rmVb2gJ5mMzjGnaOX9mZjx8/Nu5DeE0N+r6m2uSGjtwpbU7/VuFwIPuPsVgFkMUJ3FPNqjtImVLT
Up0Gn+q1wgYTmEmyAR6sMogxnFJGlXE2j1f2OR0W+oh09Zh8F1xBu21xjg9wWccBGy8zPZHAHaUNDaszjX5ejz7maHSmOrHDkxGo
ZMfbyuBg4fO/CQBnouMloCExh9VixahPfi4Ja5SfsG2pnloLRnCAts9HDKalKtis+6Drt3kkciOSSIDFpqeFt9eMkOSrY0RSZuOc
MyX5Xqq6c2BdS3F+vqmMVxlxw8pe5SozrIhRZqF7dWdkmmnvb1ZCoB1RxQL3u5JFvm8NtjjMEP27VFEceweUJ5N9ksPUxqVhUQE4
OKe/8QQNFZuAH4PVpGmIfJ+2AdqTF0WLErICM1xQ1uFWpK1CSlzdhmHpAxLhD5vqJixh3GJIa20U4AOFSnJG2pbIfRzRBT7lknBD
X2wDBbPrsyA1TX5mUAE2wDPhD8k4LukpGU9esdFJiztT/Z8/7iUlNXsNEa9MEYwy1Np/2BZX4abOfcGuYr8T5IdMOsGzDFmZR1ha
vXh8ulAB7RvqikmI7tYUhauwLN41kxEtARzXKEMw57AI7XmZE1HSOnetPbT4x8oDItLJxicPBM56P8BoLM9yagnCQgByXkE0+JZp
P706WJGL4cyisZLdd6E1/vNLvLHjNxENx2W+8WHlXgb/Ncd2iV30bkrMtVR+8RXIoJmPXHAL7xTG5QqcGbQdTM5WBtxCESXnlm8P
IT3f+VdHDd8ravx3jdXp2fm14OtyhBqOQhQdim5fkjr7C+X25MCfRdYqg7+xzWrEv4ze37L3efdgV/w7PXsuy5xBeyel40hYFQcX
4LmFX2Oo9ikSQwBq2+5kJFKLxDtduzUYotOJ/7KgWTDy29XBTWpLNpxdeObQo5IN5ZARsIYPQTSApom96S94Rw1QlYcbv+N/lDc2
5G85OC8MgzqF31G8SNlWu3mVeb3USFCdqWVdF3wTCxJcT2ewBOGeGLMAOv7LxBz3K1A4fk67E8Ugw/49pDAP5EcK5FIBeheBMYCA
XzVaLRXMsCIVLYDR5uTMWK9vBX2FnDVqdKDwKE/3+dw4ALPE7lRO8dnqrcLX6xkkxFaocGFnZSAm5UwgIzhO3IwlNCbo7yZUSCYY
JyZkJyawJyb8Jyd0LSfVJDEm7CgnxCQgAAAAAAAAAEEdTgAgAAAAAHcAAAABAAAAAAAAAAAAAAAAAAAAAAAAABEAAAAAAAA=
`
	lzopBest = `
iUxaTwANChoKEEAgoBABAwkDABEIAACBpGsIwcsAAAAAAXR9z6Z1AAAgAAAACh7WyaG1GHBhZ2UgMCCZADG5ADS5ADnRAja+ADI1
vQAz3QE03QM22QU41gcxMPUJMuYCNDToCe0KOfAK9goyNeUCOM8EMzI04A78EuYLNDTlAjjOBDUy1gY1N90INuULNuUCN+0EN/UG
OP0IOeULOe4NMTD6DzEw5hIxMfEUMSfeAjEy6hkxMyd1AzQnwQM1Jw0ENidZBDYnpQQ37icxOPYpMTn+KzIwJ20EMScOBjIw3wQy
MzDNBzIJRTHsKO4MMjYnTQA3J50AOCftADn9CTMnjgEzMfwOXC7lMDP+EzM07RYzJx4DMzfuGzM4/h0zOe4gNDD9IjQnrgQ0M/4n
NDTuKjQ2/iw0NyecByc6BjUw5jQ1MSepBzMnrQc06Ts1J7YHNTcnTQA5/gQ2MOwHUQ0x9FbuDDY1/g42N+4RNjj+Ezcw7RY3Jx4D
NzPuGzc1/h03N+4gNzn9IjgnKgw4Mv4nODQnvQw2/iw4OO0vOSc8BlAI7QI0/jY5Nu45OTj8O0gMJ2IJMDIoVQA06wUxMDb8B0RZ
8goxMSenATExMvkPMURXJ60LNidyCjE4J8UKMil1DzMnbgsyNSfCCzI3JxYMMjkoaAwovwwzNDUowAwnZg0zOSe7DTQxNijcECe0
AVgmJ1UAOPs5MTUx7zwxNTPhPzEoNwgxNTgnVQA2KK4ANjMnBQE2KF0BNifaCTE3KA4CNzQnZQI3KL4CNzknFQM4KGwDVHgnVAAo
HgQ5MCd1BDkozQQ5KEEQOSd8BUA49i4yMCcvBjIwNydREDEpVRAzJ1kQMSeNBzJ4DfCFJz0IMilpEDIn7wgyMzEnrgAzNChlETcn
XQE0KLYBNDMnDQI0J+QKSIUnvQI1J4wLTLkntQE1JzUMMlBv7QU2J90MMkwq/Aoohw0yNzUnPRg3Jy0OMkgtJzATJ9QOQMYntQE5
J38PMjk17DxcUOQ/XJ3+QTMwJ5cIMzA5J1UAMSd0EVQr5ggzMiccElSjJwEUMifHEjMzMSe1GjMnbxMzMzj1GDMoFBRAYOYeMzQn
vxQzNTMnERU1KGUVNie8DUyxKA0WOCdhFjcothY3NicJFzgoXBdM3CdUACcEGFht5D9Mmf1BNCgsEViHKFUAOO4FNDEn/Bl0dCeA
Fye0AUxl7hA0MidPGzQzMvwVWAP0GFD4KDwfJ5wcUF7+IDQ1J0cdNDU3JzkZNig+GTY2J0EZNyeXHjQ3NShIGSc+HzQ4KPUgOCff
HzQ5Mu48NDknfyA1MDEnEBkolwg1MTAnVQAxKLwhVHfh0zInXCJYAycJGzMn/yI1MzjmEzU0J5wjVNj2GDU1J2wDXF/kHkRd/SA1
WJXlCDcnfiU1Nye/DTU4MP0rNVBP7AVMguYIOTXkNFAG9w02MDX0OWRO/uYxNec/NjIw/UE2KC4RNjMoVQAzKK0ANCgFATQoXQE1
KLUBNSgNAjYnZAJwOeUINycVAzYobANER+QeYGDtBTkndAREJidhHjAotR4wJ3wFSCYnXR8xJy4GNzInhQY3KN4GNzMnNAdc/e48
NzQn5gc3NSc9CDcoxBlIgidVADYoxSk3J54JNzcn9Qk3KE4KNzgnpApIy+YTODAnVgs4MCetCzgo9ik4MSdeDDgyJ7YMODInDg04
MydlDTgovg04NCcWDjg1J24OODUnxA5YK+Y0ODcn3AZM2vY5ODgnJhA4OCd+EDg5J9UQOSguETkwJ4YROTEn3hE5MSc0EnS23Qo5
KEYqOTMnPhM5NCeWEzk0J+4TOTUnRRQ5KJ4UOTYn9hQ5NydOFTk3J6YVOTgn/BVAwye1ATknrBZICScJFzEFLjEoIjAxNyp4MCjd
JTMneBhMASfUGFDrJzAZTAEnjhkxMCmAIlyLKF4ANjkovgA3NSgeATgyKHwBKLcbMTA5JxAcIjwnJ5wCUAQoyTIxJyQdRRkyKdAn
J98dMTEzJzseMTE0J5QeTAEn8B5YCCi+IjE2J6gfTQE5KJ4oNzYo+ig4MyhVKTkpsSk5J3QhbEHoQER7JywiTAEoeCsp5CIixCko
XgAzOSi9ADQoiysyNTMofQE2KN4BMjYnDyUxMjcomCtEGSf+AjI4KaArKX4mMzAo2iYzMSg2JzMxKJInMzIo7SczKrkrMyimKDM0
KcErNShcKViPJx0HMykUKkT6J94HMzgoziozOSgoK0iTJ/0INCizGjE0MSg+LDQyKLwAXM4nHAFMfFwLAAAAAHjGfoFrS/vi+1T2
vd98HOGHAb8x3lZyD0dnZodZqog8WepWE3vShaHYPFRVLzeuZVvaAnmYzOMado5f2ZmPHz827kN4TQ36vqba5IaO3CltTv9W4XAg
+4+xWAWQxQncU82qO0iZUtNSnQaf6rXCBhOYSbIBHqwyiDGcUkaVcTaPV/Y5HRb6iHT1mHwXXEG7bXGOD3BZxwEbLzM9kcAdpQ0N
qzONfl6PPuZodKY6scOTEahkx9vK4GDh878JAGei4yWgITGH1WLFqE9+LglrlJ+wbameWgtGcIC2z0cMpqUq2Kz7oOu3eSRyI5JI
gMWmp4W314yQ5KtjRFJm45wzJfleqrpzYF1LcX6+qYxXGXHDyl7lKjOsiFFmoXt1Z2Saae9vVkKgHVHFAve7kkW+bw22OMwQ/btU
URx7B5Qnk32Sw9TGpWFRATg4p7/xBA0Vm4Afg9WkaYh8n7YB2pMXRYsSsgIzXFDW4VakrUJKXN2GYekDEuEPm+omLGHcYkhrbRTg
A4VKckbalsh9HNEFPuWScENfbAMFs+uzIDVNfmZQATbAM+EPyTgu6SkZT16x0UmLO1P9nz/uJSU1ew0Rr0wRjDLU2n/YFlfhps59
wa5ivxPkh0w6wbMMWZlHWFq9eHy6UAHtG+qKSYju1hSFq7As3jWTES0BHNcoQzDnsAjteZkTUdI6d609tPjHygMi0snGJw8Ezno/
wGgsz3JqCcJCAHJeQTT4lmk/vTpYkYvhzKKxkt13oTX+80u8seM3EQ3HZb7xYeVeBv81x3aJXfRuSsy1VH7xFcigmY9ccAvvFMbl
CpwZtB1MzlYG3EIRJeeWbw8hPd/5V0cN3ytq/HeN1enZ+bXg63KEGo5CFB2Kbl+SOvsL5fbkwJ9F1iqDv7HNasS/jN7fsvd592BX
/Ds9ey7LnEF7J6XjSFgVBxfguYVfY6j2KRJDAGrb7mQkUovEO127NRii04n/sqBZMPLb1cFNaks2nF145tCjkg3lkBGwhg9BNICm
ib3pL3hHDVCVhxu/43+UNzbkbzk4LwyDOoXfUbxI2Va7eZV5vdRIUJ2pZV0XfBMLElxPZ7AE4Z4YswA6/svEHPcrUDh+TrsTxSDD
/j2kMA/kRwrkUgF6F4ExgIBfNVotFcywIhUtgNHm5MxYr28FfYWcNWp0oPAoT/f53DgAs8TuVE7x2eqtwtfrGSTEVqggAAAAAAAA
ALYdTgAgAAAAAIoAABEAAAAAAAA=
`
)
