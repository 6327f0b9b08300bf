#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include <dnnl.hpp>
#include <omp.h>

#include "kernels/core/check.h"

namespace tessera::kernels::cpu {
namespace {

// Row counts that get a primitive of their own: every decode batch up to 16 exactly, larger ones in
// tiles. 64 rows keep x and the accumulators in L1/L2 while a weight panel is used 64 times.
constexpr std::array<int64_t, 3> kTiles = {64, 32, 16};

int64_t tile_rows(int64_t m) {
  for (const int64_t tile : kTiles) {
    if (m >= tile) {
      return tile;
    }
  }
  return m;
}

dnnl::memory::data_type to_dnnl(DType dtype) {
  TESSERA_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16,
                "matmul: float32 or bfloat16");
  return dtype == DType::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

class DnnlMatrix final : public PackedMatrix {
 public:
  /// Of inputs in `dtype`, multiplied in `compute_dtype`.
  DnnlMatrix(dnnl::memory memory, int64_t n, int64_t k, DType dtype, DType compute_dtype)
      : memory_(std::move(memory)), n_(n), k_(k), dtype_(dtype), compute_dtype_(compute_dtype) {}
  [[nodiscard]] int64_t num_bytes() const noexcept override {
    return static_cast<int64_t>(memory_.get_desc().get_size());
  }
  [[nodiscard]] const dnnl::memory& memory() const noexcept { return memory_; }
  [[nodiscard]] int64_t n() const noexcept { return n_; }
  [[nodiscard]] int64_t k() const noexcept { return k_; }
  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] DType compute_dtype() const noexcept { return compute_dtype_; }

 private:
  dnnl::memory memory_;
  int64_t n_;
  int64_t k_;
  DType dtype_;
  DType compute_dtype_;
};

struct Key {
  int64_t m, n, k;
  DType dtype, out_dtype;
  friend bool operator==(const Key&, const Key&) = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const noexcept {
    uint64_t hash = 0;
    for (const int64_t part : {key.m,
                               key.n,
                               key.k,
                               static_cast<int64_t>(key.dtype),
                               static_cast<int64_t>(key.out_dtype)}) {
      hash = (hash ^ static_cast<uint64_t>(part)) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

/// A primitive with the memory objects of one worker, so that a run only swaps pointers.
struct Prepared {
  dnnl::matmul primitive;
  dnnl::memory x;
  dnnl::memory out;
  dnnl::memory scratchpad;
};

/// oneDNN decides its blocking by the calling thread's OpenMP limit.
void limit_openmp_to_this_thread() {
  thread_local const bool is_limited = [] {
    omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(is_limited);
}

void grow(std::vector<char>& buffer, size_t num_bytes) {
  if (buffer.size() < num_bytes) {
    buffer.resize(num_bytes);
  }
}

/// Rows of `columns` numbers; strides in elements.
struct RowCopy {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t to_stride = 0;
  int64_t from_stride = 0;
};

void copy_rows(const void* from, DType from_dtype, void* to, DType to_dtype, const RowCopy& shape) {
  const auto for_rows = [&](const auto& copy) {
    for (int64_t i = 0; i < shape.rows; ++i) {
      copy(static_cast<const char*>(from) + i * shape.from_stride * dtype_bytes(from_dtype),
           static_cast<char*>(to) + i * shape.to_stride * dtype_bytes(to_dtype));
    }
  };
  if (from_dtype == to_dtype) {
    const auto num_bytes = static_cast<size_t>(shape.columns * dtype_bytes(to_dtype));
    for_rows([&](const char* source, char* target) { std::memcpy(target, source, num_bytes); });
  } else if (from_dtype == DType::kBFloat16) {
    for_rows([&](const char* source, char* target) {
      std::transform(reinterpret_cast<const BFloat16*>(source),
                     reinterpret_cast<const BFloat16*>(source) + shape.columns,
                     reinterpret_cast<float*>(target),
                     [](BFloat16 value) { return value.to_float(); });
    });
  } else {
    for_rows([&](const char* source, char* target) {
      std::transform(reinterpret_cast<const float*>(source),
                     reinterpret_cast<const float*>(source) + shape.columns,
                     reinterpret_cast<BFloat16*>(target),
                     [](float value) { return BFloat16::from_float(value); });
    });
  }
}

}  // namespace

struct Matmul::Impl {
  struct Worker {
    explicit Worker(const dnnl::engine& engine) : stream(engine) {}
    dnnl::stream stream;
    std::unordered_map<Key, Prepared, KeyHash> prepared;
    std::vector<char> scratchpad;
    std::vector<char> x_copy;  // rows of one tile, back to back
    std::vector<char> out_copy;
  };

  explicit Impl(int num_workers) : engine(dnnl::engine::kind::cpu, 0) {
    workers.reserve(static_cast<size_t>(num_workers));
    for (int i = 0; i < num_workers; ++i) {
      workers.emplace_back(engine);
    }
    has_bfloat16 = can_multiply_bfloat16();
  }

  /// oneDNN 2 has no products of bfloat16 for processors without AVX-512.
  [[nodiscard]] bool can_multiply_bfloat16() const {
    constexpr DType kBFloat16 = DType::kBFloat16;
    const dnnl::memory::desc weight({64, 64}, to_dnnl(kBFloat16), dnnl::memory::format_tag::any);
    try {
      return describe({64, 64, 64, kBFloat16, kBFloat16}, weight).get(true) != nullptr;
    } catch (const dnnl::error&) {
      return false;
    }
  }
  /// What inputs of `dtype` are multiplied in.
  [[nodiscard]] DType compute_dtype(DType dtype) const noexcept {
    return has_bfloat16 ? dtype : DType::kFloat32;
  }

  [[nodiscard]] dnnl::matmul::primitive_desc describe(const Key& key,
                                                      const dnnl::memory::desc& weight) const {
    using Desc = dnnl::memory::desc;
    const Desc x({key.m, key.k}, to_dnnl(key.dtype), dnnl::memory::dims{key.k, 1});
    const Desc out({key.m, key.n}, to_dnnl(key.out_dtype), dnnl::memory::dims{key.n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return {dnnl::matmul::desc(x, weight, out), attributes, engine};
  }

  Prepared& prepare(Worker& worker, const Key& key, const dnnl::memory::desc& weight) const {
    const auto found = worker.prepared.find(key);
    if (found != worker.prepared.end()) {
      return found->second;
    }
    const auto description = describe(key, weight);
    Prepared prepared{dnnl::matmul(description),
                      dnnl::memory(description.src_desc(), engine, nullptr),
                      dnnl::memory(description.dst_desc(), engine, nullptr),
                      dnnl::memory(description.scratchpad_desc(), engine, nullptr)};
    grow(worker.scratchpad, description.scratchpad_desc().get_size());
    grow(worker.x_copy, description.src_desc().get_size());
    grow(worker.out_copy, description.dst_desc().get_size());
    return worker.prepared.emplace(key, std::move(prepared)).first->second;
  }

  /// At most kTiles[0] rows. oneDNN's fast path wants rows back to back: others are copied, and so
  /// are those that it cannot multiply in their type.
  void run_tile(const MatmulArgs& args, Worker& worker) const {
    const auto& weight = static_cast<const DnnlMatrix&>(*args.weight);
    const DType compute = weight.compute_dtype();
    const DType out_dtype = compute == weight.dtype() ? args.out_dtype : DType::kFloat32;
    const Key key{args.m, weight.n(), weight.k(), compute, out_dtype};
    Prepared& prepared = prepare(worker, key, weight.memory().get_desc());
    const bool is_x_direct =
        compute == weight.dtype() && (args.m == 1 || args.x_stride == weight.k());
    const bool is_out_direct =
        out_dtype == args.out_dtype && (args.m == 1 || args.out_stride == weight.n());
    if (!is_x_direct) {
      copy_rows(args.x,
                weight.dtype(),
                worker.x_copy.data(),
                compute,
                {args.m, weight.k(), weight.k(), args.x_stride});
    }
    prepared.x.set_data_handle(is_x_direct ? const_cast<void*>(args.x) : worker.x_copy.data());
    prepared.out.set_data_handle(is_out_direct ? args.out : worker.out_copy.data());
    prepared.scratchpad.set_data_handle(worker.scratchpad.data());
    const std::array<dnnl_exec_arg_t, 4> arguments = {
        {{DNNL_ARG_SRC, prepared.x.get()},
         {DNNL_ARG_WEIGHTS, weight.memory().get()},
         {DNNL_ARG_DST, prepared.out.get()},
         {DNNL_ARG_SCRATCHPAD, prepared.scratchpad.get()}}};
    dnnl::error::wrap_c_api(dnnl_primitive_execute(prepared.primitive.get(),
                                                   worker.stream.get(),
                                                   static_cast<int>(arguments.size()),
                                                   arguments.data()),
                            "matrix product");
    if (!is_out_direct) {
      copy_rows(worker.out_copy.data(),
                out_dtype,
                args.out,
                args.out_dtype,
                {args.m, weight.n(), args.out_stride, weight.n()});
    }
  }

  dnnl::engine engine;
  std::vector<Worker> workers;
  bool has_bfloat16 = true;
};

Matmul::Matmul(int num_workers) : impl_(std::make_unique<Impl>(num_workers)) {}
Matmul::~Matmul() = default;

std::unique_ptr<PackedMatrix> Matmul::pack(const ConstTensorView& matrix) try {
  limit_openmp_to_this_thread();
  const int64_t n = matrix.dim(0);
  const int64_t k = matrix.dim(1);
  const DType compute = impl_->compute_dtype(matrix.dtype);
  const void* data = matrix.data;
  int64_t stride = matrix.stride[0];
  std::vector<float> widened;
  if (compute != matrix.dtype) {
    widened.resize(static_cast<size_t>(n * k));
    copy_rows(data, matrix.dtype, widened.data(), compute, {n, k, k, stride});
    data = widened.data();
    stride = k;
  }
  const Key key{kTiles[0], n, k, compute, DType::kFloat32};
  const dnnl::memory::desc any({k, n}, to_dnnl(compute), dnnl::memory::format_tag::any);
  const auto description = impl_->describe(key, any);
  dnnl::memory packed(description.weights_desc(), impl_->engine);
  // The matrix as oneDNN's weights [K, N]: element (k, n) at n * stride + k.
  dnnl::memory source({{k, n}, to_dnnl(compute), dnnl::memory::dims{1, stride}},
                      impl_->engine,
                      const_cast<void*>(data));
  dnnl::stream stream(impl_->engine);
  dnnl::reorder(source, packed).execute(stream, source, packed);
  stream.wait();
  return std::make_unique<DnnlMatrix>(std::move(packed), n, k, matrix.dtype, compute);
} catch (const dnnl::error& error) {
  throw DeviceError(std::string("oneDNN, packing a weight: ") + error.what());
}

void Matmul::run(const MatmulArgs& args, int worker_index) try {
  limit_openmp_to_this_thread();
  const auto& weight = static_cast<const DnnlMatrix&>(*args.weight);
  const int64_t x_bytes = dtype_bytes(weight.dtype());
  const int64_t out_bytes = dtype_bytes(args.out_dtype);
  for (int64_t row = 0; row < args.m;) {
    const int64_t rows = tile_rows(args.m - row);
    impl_->run_tile({.x = static_cast<const char*>(args.x) + row * args.x_stride * x_bytes,
                     .x_stride = args.x_stride,
                     .weight = args.weight,
                     .out = static_cast<char*>(args.out) + row * args.out_stride * out_bytes,
                     .out_stride = args.out_stride,
                     .m = rows,
                     .out_dtype = args.out_dtype},
                    impl_->workers[static_cast<size_t>(worker_index)]);
    row += rows;
  }
} catch (const dnnl::error& error) {
  throw DeviceError(std::string("oneDNN: ") + error.what());
}

}  // namespace tessera::kernels::cpu
