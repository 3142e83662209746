// Adds two vectors on the GPU that is visible first and compares each sum with the CPU's. Its last
// words are those of NVIDIA's sample, which the validation's wrapper looks for.
#include <cstdio>
#include <vector>

__global__ void add(const float *a, const float *b, float *sum, int count) {
  int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i < count) sum[i] = a[i] + b[i];
}

static bool ok(cudaError_t error, const char *what) {
  if (error != cudaSuccess) printf("%s: %s\n", what, cudaGetErrorString(error));
  return error == cudaSuccess;
}

int main() {
  const int count = 1 << 20;
  const size_t bytes = count * sizeof(float);
  std::vector<float> a(count), b(count), sum(count);
  for (int i = 0; i < count; i++) {
    a[i] = i * 0.5f;
    b[i] = count - i;
  }
  float *on_gpu[3] = {};
  for (float *&vector : on_gpu)
    if (!ok(cudaMalloc(&vector, bytes), "cudaMalloc")) return 1;
  if (!ok(cudaMemcpy(on_gpu[0], a.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy")) return 1;
  if (!ok(cudaMemcpy(on_gpu[1], b.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy")) return 1;
  add<<<(count + 255) / 256, 256>>>(on_gpu[0], on_gpu[1], on_gpu[2], count);
  if (!ok(cudaGetLastError(), "add")) return 1;
  if (!ok(cudaMemcpy(sum.data(), on_gpu[2], bytes, cudaMemcpyDeviceToHost), "cudaMemcpy")) return 1;
  for (int i = 0; i < count; i++)
    if (sum[i] != a[i] + b[i]) {
      printf("Test FAILED: element %d is %f, not %f\n", i, sum[i], a[i] + b[i]);
      return 1;
    }
  for (float *vector : on_gpu) cudaFree(vector);
  printf("Test PASSED\n");
  return 0;
}
