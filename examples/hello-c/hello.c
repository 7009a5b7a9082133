#include <stdio.h>

int main(void)
{
    puts("hello from an image that holds nothing but this program");
    return 0;
}
