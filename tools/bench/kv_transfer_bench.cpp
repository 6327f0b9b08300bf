// How fast the block images of a prompt get from a prefill worker's memory into a decode rank's
// cache in another process: landed and acknowledged, beside plain puts of the same prompt over the
// same lane (into memory of its size, no check) and beside memcpy; and how long one block takes
// from send() to its acknowledgement. Puts that go round in the landing slots are shown too: over
// shared memory they are faster than any transfer, since nobody reads what they write and it never
// leaves the writer's cache. All ways are measured in turn, several times; medians are printed, and
// the ratio to the prompt's puts with its range.
//
// With --device cuda the images go from one GPU's memory into another's (or the same one's).
//
//   UCX_TLS=tcp,self UCX_NET_DEVICES=lo kv_transfer_bench [--megabytes 64] [--prompts 8]
//                                       [--repetitions 5] [--slots 16]
//   kv_transfer_bench --device cuda --source 0 --target 1 --image-bytes 2498560 4497408
//                     --images 16 128 512 --slots 32

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_link.h"
#include "engine/transport/ucx_transport.h"
#include "tools/bench/bench_memory.h"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int32_t kNumSingles = 300;  // parcels sent one by one

struct Options {
  int64_t megabytes = 64;  ///< of one prompt
  int32_t num_prompts = 8;
  int32_t num_repetitions = 5;
  int32_t num_slots = 16;
  std::vector<int64_t> image_bytes = {
      1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22};
  std::vector<int64_t> num_images;  ///< of one prompt; empty: by the megabytes
  std::string device = "cpu";
  int source = 0;  ///< GPU
  int target = 0;
};

/// What one measurement yields. In memory that parent and children share.
struct Figures {
  double mb_per_s = 0;
  double median_us = 0;
  std::array<char, 64> lane{};
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

HandoffKey key_of(int32_t prompt) {
  return {{1, static_cast<uint64_t>(prompt) + 1}, 1};
}

/// A stream of strings between two processes.
class Pipe {
 public:
  Pipe() {
    if (pipe(ends_.data()) != 0) {
      std::perror("pipe");
      std::_Exit(1);
    }
  }
  void write(const std::string& text) const {
    const uint64_t size = text.size();
    if (::write(ends_[1], &size, sizeof(size)) < 0 || ::write(ends_[1], text.data(), size) < 0) {
      std::perror("write");
    }
  }
  [[nodiscard]] std::string read() const {
    uint64_t size = 0;
    if (::read(ends_[0], &size, sizeof(size)) != sizeof(size)) {
      return {};
    }
    std::string text(size, '\0');
    size_t done = 0;
    while (done < size) {
      const ssize_t count = ::read(ends_[0], text.data() + done, size - done);
      if (count <= 0) {
        return {};
      }
      done += static_cast<size_t>(count);
    }
    return text;
  }

 private:
  std::array<int, 2> ends_{};
};

/// What both ends of one measurement know.
struct Case {
  int64_t image_bytes = 0;
  int64_t num_images = 0;   ///< of a prompt
  int32_t num_prompts = 0;  ///< one after the other, from and into the same memory
  int32_t num_slots = 0;
  int64_t num_places = 0;  ///< images in what plain puts write
  int source = -1;         ///< GPU; below 0: the host
  int target = -1;
  const std::byte* images = nullptr;  ///< what is put
  Pipe to_sender;
  Pipe to_receiver;
  Figures* figures = nullptr;
};

class Events final : public KvSender::Listener, public KvReceiver::Listener {
 public:
  void on_connected(PeerId /*peer*/) override { add(1); }
  void on_acked(PeerId /*peer*/, const HandoffKey& /*key*/, int64_t count) override { add(count); }
  void on_drained(PeerId /*peer*/, const HandoffKey& /*key*/) override {}
  void on_parcel_failed(PeerId /*p*/, const HandoffKey& /*key*/, const Status& status) override {
    std::fprintf(stderr, "%s\n", status.to_string().c_str());
  }
  void on_peer_failed(PeerId /*peer*/, const Status& status) override {
    std::fprintf(stderr, "%s\n", status.to_string().c_str());
    std::_Exit(1);
  }
  void on_disconnected(PeerId /*peer*/) override { add(1); }
  void on_landed(int32_t /*rank*/, const HandoffKey& /*key*/) override {}
  void on_connection_failed(int32_t /*rank*/, uint64_t /*c*/, const Status& /*s*/) override {}
  /// Waits for `count` more events.
  void await(int64_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return count_ >= count; });
    count_ -= count;
  }

 private:
  void add(int64_t count) {
    const std::lock_guard lock(mutex_);
    count_ += count;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t count_ = 0;
};

double prompt_mb_per_s(const Case& run, Clock::time_point start) {
  return static_cast<double>(run.num_images * run.image_bytes) / seconds_since(start) / 1e6;
}

void receive_parcels(const Case& run) {
  const BenchMemory cache(run.target, run.image_bytes * run.num_images, 1);
  Events events;
  ReceiverOptions options;
  options.num_slots = run.num_slots;
  options.max_regions = 2;
  const auto receiver =
      create_ucx_receiver(options,
                          0,
                          {cache.data(), run.image_bytes, run.image_bytes, run.num_images},
                          events,
                          cache.mover())
          .value();
  const LandingRegion region = receiver->open().value();
  std::vector<int32_t> blocks(static_cast<size_t>(run.num_images));
  std::iota(blocks.begin(), blocks.end(), 0);
  for (int32_t prompt = 0; prompt < run.num_prompts; ++prompt) {
    receiver->expect(region.connection, key_of(prompt), blocks);
  }
  blocks.assign(kNumSingles, 0);
  receiver->expect(region.connection, key_of(run.num_prompts), blocks);
  run.to_sender.write(region.worker_address);
  run.to_sender.write(region.remote_key);
  run.to_sender.write(std::to_string(region.connection));
  run.to_sender.write(std::to_string(region.base_address));
  static_cast<void>(run.to_receiver.read());
}

LandingRegion read_region(const Case& run) {
  LandingRegion region;
  region.worker_address = run.to_sender.read();
  region.remote_key = run.to_sender.read();
  region.connection = std::stoull(run.to_sender.read());
  region.base_address = std::stoull(run.to_sender.read());
  region.num_slots = run.num_slots;
  region.slot_bytes = run.image_bytes;
  return region;
}

void send_parcels(const Case& run) {
  const BenchMemory cache(run.source, run.image_bytes * run.num_images, 7);
  Events events;
  const auto sender = create_ucx_sender({}, events, cache.mover()).value();
  if (!sender->register_memory(cache.data(), run.image_bytes * run.num_images).is_ok()) {
    return;
  }
  const PeerId peer = sender->connect({read_region(run)});
  events.await(1);
  const auto parcel = [&](int32_t prompt, int32_t index) {
    const int64_t image = index % run.num_images;
    return Parcel{
        key_of(prompt), 0, index, cache.data() + (image * run.image_bytes), run.image_bytes};
  };
  std::vector<double> speeds;
  for (int32_t prompt = 0; prompt < run.num_prompts; ++prompt) {
    std::vector<Parcel> parcels;
    for (int32_t i = 0; i < run.num_images; ++i) {
      parcels.push_back(parcel(prompt, i));
    }
    const Clock::time_point start = Clock::now();
    sender->send(peer, std::move(parcels));
    events.await(run.num_images);
    speeds.push_back(prompt_mb_per_s(run, start));
  }
  run.figures->mb_per_s = median(speeds);
  std::vector<double> times;
  for (int32_t i = 0; i < kNumSingles; ++i) {
    const Clock::time_point begin = Clock::now();
    sender->send(peer, {parcel(run.num_prompts, i)});
    events.await(1);
    times.push_back(seconds_since(begin) * 1e6);
  }
  run.figures->median_us = median(times);
  std::snprintf(run.figures->lane.data(),
                run.figures->lane.size(),
                "%s",
                sender->statistics(peer).at(0).lane.c_str());
  sender->disconnect(peer);
  events.await(1);
  run.to_receiver.write("done");
}

/// Makes way when there is nothing to do: on a busy machine the other end may be waiting for it.
void turn(UcxLink& link) {
  if (!link.progress()) {
    sched_yield();
  }
}

void receive_puts(const Case& run) {
  const int64_t num_bytes = run.image_bytes * run.num_places;
  std::optional<BenchMemory> on_gpu;
  if (run.target >= 0) {
    on_gpu.emplace(run.target, num_bytes, 1);
  }
  const auto context = UcxContext::create(on_gpu.has_value()).value();
  const UcxMemory memory = on_gpu
                               ? UcxMemory::create(context, on_gpu->data(), num_bytes, true).value()
                               : UcxMemory::allocate(context, num_bytes).value();
  if (!on_gpu) {
    std::memset(memory.data(), 1, static_cast<size_t>(num_bytes));
  }
  const auto link = UcxLink::create(*context).value();
  run.to_sender.write(link->address());
  run.to_sender.write(memory.remote_key().value());
  run.to_sender.write("0");
  run.to_sender.write(std::to_string(reinterpret_cast<uint64_t>(memory.data())));
  while (true) {  // the parent ends it
    turn(*link);
  }
}

/// The images of a prompt, a flush for as many as there are landing slots.
void put_all(UcxLink& link, const Case& run, const LandingRegion& region) {
  for (int64_t i = 0; i < run.num_images; ++i) {
    link.put(run.images + (i * run.image_bytes),
             run.image_bytes,
             region.base_address + static_cast<uint64_t>(i % run.num_places * run.image_bytes));
    if (i % run.num_slots != run.num_slots - 1 && i != run.num_images - 1) {
      continue;
    }
    bool is_done = false;
    link.flush([&is_done] { is_done = true; });
    while (!is_done && link.failure().is_ok()) {
      turn(link);
    }
  }
}

void send_puts(Case run) {
  const BenchMemory images(run.source, run.image_bytes * run.num_images, 7);
  run.images = images.data();
  const auto context = UcxContext::create(images.is_cuda()).value();
  const LandingRegion region = read_region(run);
  const auto link = UcxLink::create(*context).value();
  if (images.is_cuda()) {
    link->set_cuda_sources();
  }
  if (!link->connect(region.worker_address).is_ok() ||
      !link->import_remote_key(region.remote_key).is_ok()) {
    return;
  }
  put_all(*link, run, region);  // connects too
  std::vector<double> speeds;
  for (int32_t prompt = 0; prompt < run.num_prompts; ++prompt) {
    const Clock::time_point start = Clock::now();
    put_all(*link, run, region);
    speeds.push_back(prompt_mb_per_s(run, start));
  }
  run.figures->mb_per_s = median(speeds);
}

pid_t in_child(const std::function<void()>& work) {
  std::fflush(stdout);  // or the child writes it again
  const pid_t pid = fork();
  if (pid == 0) {
    work();
    std::_Exit(0);
  }
  return pid;
}

/// The parent never uses UCX, so that each child starts clean.
void measure(const std::function<void()>& receive, const std::function<void()>& send) {
  const pid_t receiver = in_child(receive);
  const pid_t sender = in_child(send);
  waitpid(sender, nullptr, 0);
  kill(receiver, SIGKILL);
  waitpid(receiver, nullptr, 0);
}

double memcpy_mb_per_s(const Case& run) {
  const std::vector<char> from(static_cast<size_t>(run.image_bytes * run.num_images), 7);
  std::vector<char> to(from.size(), 1);
  const auto image = static_cast<size_t>(run.image_bytes);
  const Clock::time_point start = Clock::now();
  for (size_t offset = 0; offset < from.size(); offset += image) {
    std::memcpy(&to[offset], &from[offset], image);
  }
  return prompt_mb_per_s(run, start);
}

void run_size(const Options& options, int64_t image_bytes, int64_t num_images, Figures* shared) {
  std::vector<double> ours;
  std::vector<double> plain;
  std::vector<double> round;
  std::vector<double> ratios;
  std::vector<double> copies;
  std::vector<double> medians_us;
  for (int32_t repetition = 0; repetition < options.num_repetitions; ++repetition) {
    Case run;
    run.image_bytes = image_bytes;
    run.num_images = num_images;
    run.source = options.device == "cuda" ? options.source : -1;
    run.target = options.device == "cuda" ? options.target : -1;
    run.num_prompts = options.num_prompts;
    run.num_slots = options.num_slots;
    run.figures = shared;
    run.num_places = run.num_slots;
    measure([&] { receive_puts(run); }, [&] { send_puts(run); });
    round.push_back(shared->mb_per_s);
    run.num_places = run.num_images;
    measure([&] { receive_puts(run); }, [&] { send_puts(run); });
    plain.push_back(shared->mb_per_s);
    measure([&] { receive_parcels(run); }, [&] { send_parcels(run); });
    ours.push_back(shared->mb_per_s);
    ratios.push_back(ours.back() / plain.back());
    copies.push_back(options.device == "cuda" ? 0.0 : memcpy_mb_per_s(run));
    medians_us.push_back(shared->median_us);
  }
  const auto [lowest, highest] = std::minmax_element(ratios.begin(), ratios.end());
  const double prompt_mb = static_cast<double>(image_bytes * num_images) / 1e6;
  std::printf("%8ld KiB %6ld %8.3f %8.0f %8.0f %6.2f (%4.2f-%4.2f) %9.0f %8.0f %9.0f  %s\n",
              static_cast<long>(image_bytes / 1024),
              static_cast<long>(num_images),
              prompt_mb / median(ours) * 1e3,
              median(ours),
              median(plain),
              median(ratios),
              *lowest,
              *highest,
              median(round),
              median(copies),
              median(medians_us),
              shared->lane.data());
  std::fflush(stdout);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  using namespace tessera::bench;
  Options options;
  CLI::App app("Speed of the way of block images into another process's cache");
  app.add_option("--megabytes", options.megabytes, "of one prompt");
  app.add_option("--prompts", options.num_prompts, "sent one after the other");
  app.add_option("--repetitions", options.num_repetitions, "of both ways in turn");
  app.add_option("--slots", options.num_slots, "landing slots");
  app.add_option("--image-bytes", options.image_bytes, "sizes of one block's image");
  app.add_option("--images", options.num_images, "of one prompt; else as many as --megabytes says");
  app.add_option("--device", options.device, "cpu or cuda");
  app.add_option("--source", options.source, "GPU that images come from");
  app.add_option("--target", options.target, "GPU that they go to");
  CLI11_PARSE(app, argc, argv);
  void* shared =
      mmap(nullptr, sizeof(Figures), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  std::printf("%12s %6s %8s %8s %8s %6s %11s %9s %8s %9s\n",
              "image",
              "images",
              "ms",
              "MB/s",
              "put MB/s",
              "ratio",
              "(range)",
              "put slots",
              "memcpy",
              "median us");
  for (const int64_t image_bytes : options.image_bytes) {
    std::vector<int64_t> counts = options.num_images;
    if (counts.empty()) {
      counts = {std::max<int64_t>(1, options.megabytes * 1'000'000 / image_bytes)};
    }
    for (const int64_t num_images : counts) {
      run_size(options, image_bytes, num_images, new (shared) Figures());
    }
  }
  return 0;
}
