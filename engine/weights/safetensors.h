// One safetensors file, memory-mapped; tensors are views of the mapping.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/result.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/safetensors_header.h"
#include "kernels/core/tensor_view.h"

namespace tessera {

class SafetensorsFile final {
 public:
  /// Errors: NOT_FOUND; INVALID_ARGUMENT for every fault of the header (safetensors_header.h).
  [[nodiscard]] static Result<SafetensorsFile> open(const std::string& path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// In the order of their bytes.
  [[nodiscard]] const std::vector<SafetensorsEntry>& entries() const noexcept { return entries_; }
  /// The texts of the header's `__metadata__`.
  [[nodiscard]] std::map<std::string, std::string> metadata() const;
  /// View of the file's memory, valid as long as this object or what it is moved to. Its data may
  /// be unaligned, as the file has it; null for a tensor without elements.
  [[nodiscard]] kernels::ConstTensorView view(const SafetensorsEntry& entry) const;
  /// Gives back the memory behind a tensor that has been read.
  void release(const SafetensorsEntry& entry) const noexcept;

 private:
  SafetensorsFile(std::string path,
                  MappedFile file,
                  int64_t data_offset,
                  std::vector<SafetensorsEntry> entries)
      : path_(std::move(path)),
        file_(std::move(file)),
        data_offset_(data_offset),
        entries_(std::move(entries)) {}

  std::string path_;
  MappedFile file_;
  int64_t data_offset_ = 0;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace tessera
