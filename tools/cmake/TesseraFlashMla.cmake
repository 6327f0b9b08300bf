# attention_bench's baseline: FlashMLA's dense decode, from a checkout with its submodule, or nothing.
set(TESSERA_FLASH_MLA "" CACHE PATH "Checkout of FlashMLA with its submodule, for attention_bench --flash-mla")

function(tessera_add_flash_mla bench)
  if(NOT TESSERA_FLASH_MLA)
    target_sources(${bench} PRIVATE flash_mla_none.cpp)
    return()
  endif()
  set(folder "${TESSERA_FLASH_MLA}/csrc")
  set(sources "${folder}/sm90/decode/dense/instantiations/bf16.cu"
    "${folder}/smxx/decode/combine/combine.cu"
    "${folder}/smxx/decode/get_decoding_sched_meta/get_decoding_sched_meta.cu")
  add_library(flash_mla STATIC ${sources})
  # As its own setup.py compiles them.
  target_compile_options(flash_mla PRIVATE --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math
    --ptxas-options=--register-usage-level=10 -w)
  target_include_directories(flash_mla SYSTEM PUBLIC "${folder}" "${folder}/sm90" "${folder}/kerutils/include"
    "${folder}/cutlass/include" "${folder}/cutlass/tools/util/include")
  target_sources(${bench} PRIVATE flash_mla.cu)
  target_link_libraries(${bench} PRIVATE flash_mla CUDA::cuda_driver)
endfunction()
