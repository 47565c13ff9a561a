package csource

import "testing"

// exchange holds matrices of bytes and of words against their transposes: whole
// blocks of registers, rests that overlap, and less than a block.
const exchange = `
static u8 s8[240 * 240], d8[240 * 240];
static u32 s32[240 * 240], d32[240 * 240];
int main(void) {
  static const int rows[] = {16, 17, 31, 33, 64, 100, 16, 200, 15, 3}, cols[] = {16, 16, 40, 17, 64, 7, 200, 16, 90, 5};
  for (int i = 0; i < 240 * 240; i++) s8[i] = (u8)(i * 37 + i / 256), s32[i] = (u32)i * 2654435761u;
  for (int t = 0; t < 10; t++) {
    int r = rows[t], c = cols[t];
    transpose_8(d8, r + 3, s8, c + 5, r, c);
    transpose_32(d32, r + 3, s32, c + 5, r, c);
    for (int i = 0; i < r; i++)
      for (int j = 0; j < c; j++)
        if (d8[j * (r + 3) + i] != s8[i * (c + 5) + j] || d32[j * (r + 3) + i] != s32[i * (c + 5) + j]) {
          printf("%d rows of %d, element %d, %d\n", r, c, i, j);
          return 1;
        }
  }
  return 0;
}
`

func TestTransposes(t *testing.T) {
	if out, err := execute(t, nil, exchange); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
