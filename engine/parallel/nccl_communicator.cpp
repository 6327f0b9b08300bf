#include "engine/parallel/nccl_communicator.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include <cuda_runtime_api.h>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/parallel/nccl_handles.h"
#include "engine/parallel/nccl_library.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DeviceBuffer;
using kernels::StreamView;
using kernels::TensorView;

constexpr std::chrono::seconds kMemberLimit{60};
constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

size_t count_of(int64_t count) {
  return static_cast<size_t>(count);
}

/// What the members of one group share.
struct Group {
  std::shared_ptr<NcclHandles> handles;
  std::vector<ncclComm_t> members;  ///< null in a group of one
  std::vector<std::atomic<int64_t>>
      num_columns{};  ///< of all_gather_columns, by member; 0: not yet
  explicit Group(std::shared_ptr<NcclHandles> owner, std::vector<ncclComm_t> all)
      : handles(std::move(owner)), members(std::move(all)), num_columns(members.size()) {}
};

class NcclCommunicator final : public Communicator {
 public:
  struct Place {
    int member = 0;
    int rank = 0;                                 ///< of all ranks: whose device and stream it is
    std::shared_ptr<const DeviceBuffer> staging;  ///< of the rank, for operands on their way
  };
  NcclCommunicator(std::shared_ptr<Group> group, Place place, const NcclOptions& options)
      : group_(std::move(group)),
        place_(place),
        native_stream_(options.native_stream),
        small_sum_(options.small_sum) {}
  [[nodiscard]] int rank() const noexcept override { return place_.member; }
  [[nodiscard]] int size() const noexcept override {
    return static_cast<int>(group_->members.size());
  }
  void abort(const std::string& reason) noexcept override { group_->handles->abort(reason); }

  /// all_reduce of all ranks of up to so many elements goes past NCCL, and where that is ever the
  /// faster way, so does reduce_scatter_heads.
  void set_small_sum_limit(int64_t max_elements) { small_sum_limit_ = max_elements; }
  /// NCCL's all-reduce of x [count].
  void sum_by_nccl(float* x, int64_t count, StreamView stream) {
    call("all-reduce", [&](const NcclLibrary& nccl) {
      return nccl.AllReduce(x, x, count_of(count), ncclFloat32, ncclSum, comm(), stream_of(stream));
    });
  }

 private:
  [[nodiscard]] cudaStream_t stream_of(StreamView stream) const {
    return static_cast<cudaStream_t>(native_stream_(place_.rank, stream));
  }
  [[nodiscard]] ncclComm_t comm() const {
    return group_->members[static_cast<size_t>(place_.member)];
  }
  template <typename Enqueue>
  void call(const char* what, const Enqueue& enqueue) const {
    group_->handles->call(what, enqueue);
  }
  static void check(cudaError_t result, const char* call) {
    if (result != cudaSuccess) {
      throw DeviceError(str_cat(call, ": ", cudaGetErrorString(result)));
    }
  }
  [[nodiscard]] float* staging(int64_t count) const {
    TESSERA_CHECK(count * kFloatBytes <= place_.staging->num_bytes(),
                  "an operand above staging_bytes");
    return static_cast<float*>(place_.staging->data());
  }

  /// `rows` rows of `width` floats, from rows `from_stride` floats apart to rows `to_stride` apart.
  struct Rows {
    int64_t rows = 0;
    int64_t width = 0;
    int64_t from_stride = 0;
    int64_t to_stride = 0;
  };
  static void copy_rows(const float* from, float* to, const Rows& shape, cudaStream_t stream) {
    check(cudaMemcpy2DAsync(to,
                            count_of(shape.to_stride * kFloatBytes),
                            from,
                            count_of(shape.from_stride * kFloatBytes),
                            count_of(shape.width * kFloatBytes),
                            count_of(shape.rows),
                            cudaMemcpyDeviceToDevice,
                            stream),
          "cudaMemcpy2DAsync");
  }

  void do_all_reduce(const TensorView& x, StreamView stream) override {
    group_->handles->throw_if_aborted();
    if (x.num_elements() <= small_sum_limit_) {
      small_sum_.run(place_.rank, x.as<float>(), x.num_elements(), stream);
    } else {
      sum_by_nccl(x.as<float>(), x.num_elements(), stream);
    }
  }

  bool do_all_reduce_norm(const kernels::RmsNormParams& norm, StreamView stream) override {
    group_->handles->throw_if_aborted();
    return small_sum_.run_norm != nullptr && norm.add.num_elements() <= small_sum_limit_ &&
           small_sum_.run_norm(place_.rank, norm, stream);
  }

  bool do_reduce_scatter_rounded(const ConstTensorView& partial,
                                 const TensorView& out,
                                 StreamView stream) override {
    group_->handles->throw_if_aborted();
    const TensorView rows(out.data, out.dtype, {out.dim(0), out.dim(1) * out.dim(2)});
    return small_sum_limit_ > 0 && small_sum_.run_scatter != nullptr &&
           small_sum_.run_scatter(place_.rank, partial.as<float>(), rows, stream);
  }

  void do_reduce_scatter_heads(const ConstTensorView& partial,
                               const TensorView& sum,
                               StreamView stream) override {
    group_->handles->throw_if_aborted();
    const int64_t rows = sum.dim(0);
    const int64_t width = sum.dim(1) * sum.dim(2);
    const cudaStream_t native = stream_of(stream);
    const float* source = partial.as<float>();
    if (size() == 1) {
      copy_rows(source, sum.as<float>(), {rows, width, width, width}, native);
      return;
    }
    if (rows > 1) {  // NCCL scatters what lies back to back: [B, G, h d] to [G, B, h d]
      float* transposed = staging(partial.num_elements());
      for (int member = 0; member < size(); ++member) {
        copy_rows(source + member * width,
                  transposed + member * rows * width,
                  {rows, width, width * size(), width},
                  native);
      }
      source = transposed;
    }
    call("reduce-scatter", [&](const NcclLibrary& nccl) {
      return nccl.ReduceScatter(
          source, sum.data, count_of(rows * width), ncclFloat32, ncclSum, comm(), native);
    });
  }

  void do_all_gather_columns(const ConstTensorView& own,
                             const TensorView& out,
                             StreamView stream) override {
    group_->handles->throw_if_aborted();
    const cudaStream_t native = stream_of(stream);
    const std::vector<int64_t> widths = exchange_widths(own.dim(1));
    // A member cannot know who else wants them: those who compute logits in parts sample on one.
    TESSERA_CHECK((out.data != nullptr) == (rank() == 0), "columns are gathered on member 0");
    if (rank() != 0) {
      call("send", [&](const NcclLibrary& nccl) {
        return nccl.Send(own.data, count_of(own.num_elements()), ncclFloat32, 0, comm(), native);
      });
      return;
    }
    receive_columns(own, widths, out, native);
  }

  void receive_columns(const ConstTensorView& own,
                       const std::vector<int64_t>& widths,
                       const TensorView& out,
                       cudaStream_t native) {
    const int64_t rows = own.dim(0);
    const int64_t all = out.dim(1);
    float* received = size() > 1 ? staging(rows * (all - widths[0])) : nullptr;
    call("receive", [&](const NcclLibrary& nccl) {
      ncclResult_t result = nccl.GroupStart();
      int64_t offset = 0;
      for (int member = 1; member < size() && result == ncclSuccess; ++member) {
        const int64_t count = rows * widths[static_cast<size_t>(member)];
        result = nccl.Recv(received + offset, count_of(count), ncclFloat32, member, comm(), native);
        offset += count;
      }
      const ncclResult_t end = nccl.GroupEnd();
      return result != ncclSuccess ? result : end;
    });
    const float* source = own.as<float>();
    int64_t column = 0;
    for (const int64_t width : widths) {
      TESSERA_CHECK(column + width <= all, "more columns than out has");
      copy_rows(source, out.as<float>() + column, {rows, width, width, all}, native);
      column += width;
      source = source == own.as<float>() ? received : source + rows * width;
    }
    TESSERA_CHECK(column == all, "out has more columns than the members together");
  }

  /// Columns of each member, which never change: the first call waits on the host for the others.
  std::vector<int64_t> exchange_widths(int64_t own) {
    auto& widths = group_->num_columns;
    std::atomic<int64_t>& mine = widths[static_cast<size_t>(rank())];
    TESSERA_CHECK(mine.load() == 0 || mine.load() == own, "a member's columns changed");
    mine.store(own);
    const auto limit = std::chrono::steady_clock::now() + kMemberLimit;
    std::vector<int64_t> all;
    for (const std::atomic<int64_t>& width : widths) {
      while (width.load() == 0) {
        group_->handles->throw_if_aborted();
        if (std::chrono::steady_clock::now() > limit) {
          throw DeviceError(
              str_cat("rank ", rank(), ": a member did not say how many columns it has"));
        }
        std::this_thread::yield();
      }
      all.push_back(width.load());
    }
    return all;
  }

  void do_all_gather(const ConstTensorView& own,
                     const TensorView& out,
                     StreamView stream) override {
    group_->handles->throw_if_aborted();
    const int64_t count = own.num_elements();
    const cudaStream_t native = stream_of(stream);
    if (size() == 1) {
      copy_rows(own.as<float>(), out.as<float>(), {1, count, count, count}, native);
      return;
    }
    call("all-gather", [&](const NcclLibrary& nccl) {
      return nccl.AllGather(own.data, out.data, count_of(count), ncclFloat32, comm(), native);
    });
  }

  const std::shared_ptr<Group> group_;
  const Place place_;
  const std::function<void*(int, StreamView)> native_stream_;
  const SmallSum small_sum_;
  int64_t small_sum_limit_ = -1;  // a group of one has nothing to add
};

/// `ranks`: of all ranks, in their order.
int64_t choose_sums(const NcclOptions& options, const std::vector<NcclCommunicator*>& ranks) {
  const RankSum by_nccl = [&](int rank, float* x, int64_t count, StreamView stream) {
    ranks[static_cast<size_t>(rank)]->sum_by_nccl(x, count, stream);
  };
  return small_sum_limit_blocking(options.memory, options.small_sum, by_nccl, [&] {
    ranks.front()->abort("a rank failed while sums were timed");
  });
}

}  // namespace

Status check_nccl(const std::string& library) {
  return NcclLibrary::load(library).status();
}

Result<std::vector<RankCommunicators>> make_nccl_communicators(const NcclOptions& options,
                                                               int subgroup_size) {
  const int num_ranks = static_cast<int>(options.devices.size());
  TESSERA_CHECK(num_ranks >= 1 && subgroup_size >= 1 && num_ranks % subgroup_size == 0,
                "subgroups of one size");
  TESSERA_CHECK(options.memory.size() == options.devices.size(), "memory of each rank");
  TESSERA_TRY(auto library, NcclLibrary::load(options.library));
  log_info("nccl", "version", library->version, "library", library->path, "ranks", num_ranks);
  const auto handles = std::make_shared<NcclHandles>(std::move(library), options.small_sum.abort);
  TESSERA_TRY(auto all, handles->add_group(options.devices));
  const auto world = std::make_shared<Group>(handles, std::move(all));
  std::vector<RankCommunicators> ranks;
  std::vector<NcclCommunicator*> worlds;
  std::vector<NcclCommunicator*> whole_subgroups;  // of all ranks, too
  std::shared_ptr<Group> subgroup;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int member = rank % subgroup_size;
    if (member == 0 && subgroup_size == num_ranks) {
      subgroup = world;
    } else if (member == 0) {
      const auto begin = options.devices.begin() + rank;
      TESSERA_TRY(auto members, handles->add_group({begin, begin + subgroup_size}));
      subgroup = std::make_shared<Group>(handles, std::move(members));
    }
    // One for both: a rank's collectives follow each other on its stream.
    const auto staging = std::make_shared<const DeviceBuffer>(
        options.memory[static_cast<size_t>(rank)]->allocate(options.staging_bytes));
    auto of_all = std::make_unique<NcclCommunicator>(
        world, NcclCommunicator::Place{rank, rank, staging}, options);
    worlds.push_back(of_all.get());
    auto of_subgroup = std::make_unique<NcclCommunicator>(
        subgroup, NcclCommunicator::Place{member, rank, staging}, options);
    if (subgroup_size == num_ranks) {
      whole_subgroups.push_back(of_subgroup.get());
    }
    ranks.push_back({std::move(of_all), std::move(of_subgroup)});
  }
  handles->watch();
  if (options.small_sum.run && num_ranks > 1) {
    const int64_t limit = choose_sums(options, worlds);
    for (const auto& communicators : {worlds, whole_subgroups}) {
      for (NcclCommunicator* communicator : communicators) {
        communicator->set_small_sum_limit(limit);
      }
    }
  }
  return ranks;
}

}  // namespace tessera
