// One compute device: its memory and its streams. CPU: memory is the host's, streams run in order
// at submission. Any thread may allocate; work on one stream is submitted by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace tessera::kernels {

class Device;
class ImageMover;

/// Move-only owner of device memory, aligned to 64 bytes or more. Returns it to its Device.
class DeviceBuffer final {
 public:
  DeviceBuffer() noexcept = default;
  DeviceBuffer(Device* device, void* data, int64_t num_bytes) noexcept
      : device_(device), data_(data), num_bytes_(num_bytes) {}
  ~DeviceBuffer() { reset(); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] int64_t num_bytes() const noexcept { return num_bytes_; }
  void reset() noexcept;

 private:
  Device* device_ = nullptr;  // outlives the buffer
  void* data_ = nullptr;
  int64_t num_bytes_ = 0;
};

/// Names a stream of a Device; null is the device's default stream.
struct StreamView {
  void* handle = nullptr;
};

/// Work that a device recorded, to be run again and again without its host's part.
class DeviceGraph {
 public:
  DeviceGraph() = default;
  virtual ~DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  /// Queues the work on `stream`. It reads and writes the memory that it was recorded with.
  virtual void launch(StreamView stream) = 0;
};

class Device {
 public:
  Device() = default;
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// Uninitialised memory. Throws DeviceError when there is none left.
  [[nodiscard]] virtual DeviceBuffer allocate(int64_t num_bytes) = 0;
  virtual void copy_from_host(void* destination,
                              const void* source,
                              int64_t num_bytes,
                              StreamView stream) = 0;
  /// The bytes are on the host after synchronize_blocking(stream).
  virtual void copy_to_host(void* destination,
                            const void* source,
                            int64_t num_bytes,
                            StreamView stream) = 0;
  /// Within the device; the ranges do not overlap.
  virtual void copy(void* destination,
                    const void* source,
                    int64_t num_bytes,
                    StreamView stream) = 0;
  virtual void synchronize_blocking(StreamView stream) = 0;
  /// Whether record() records; it is for devices whose host submits work slower than they do it.
  [[nodiscard]] virtual bool can_record() const noexcept { return false; }
  /// Records what `work` queues on `stream`, without running it: operations of this device's Ops
  /// that have run before with the same shapes. Null from devices that do not record.
  [[nodiscard]] virtual std::unique_ptr<DeviceGraph> record(StreamView stream,
                                                            const std::function<void()>& work);
  /// What a transport needs where the host cannot read the memory; null where it can. The device
  /// outlives it.
  [[nodiscard]] virtual std::unique_ptr<ImageMover> make_image_mover();
  /// "cpu: 2 threads, avx512_bf16" for the log.
  [[nodiscard]] virtual std::string description() const = 0;

 private:
  friend class DeviceBuffer;
  virtual void deallocate(void* data) noexcept = 0;
};

}  // namespace tessera::kernels
